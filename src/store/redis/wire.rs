//! A connection for script calls, one at a time.
//!
//! The shared connection of the `redis` crate passes each command to a separate task, and each answer back: two task
//! switches that delay a lone caller (decision 0009). A batcher worker makes one call at a time, so it reads and writes
//! the socket itself. The protocol is RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>. A script
//! call needs arrays of strings out, strings and errors in.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};

use super::{error::RedisError, fence::ServerId, tls};

/// Buffer space for a read. A reply of the script has at most some 120 answers.
const RECEIVE_BYTES: usize = 16 * 1024;

/// A connection with one command in flight at a time.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    response_timeout: Duration,
    answered_at: Instant,
}

/// Reply to a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// `+…` or `$…`.
    Text(&'a [u8]),
    /// `-…`: an error from Redis.
    Refusal(&'a str),
    /// Any other reply. The gate's script returns none of these.
    Other,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Wire {
    /// Connects, authenticates, selects the database and reads which Redis this is. A failure has no effect.
    pub(super) async fn connect(
        server: &ConnectionInfo,
        connect_timeout: Duration,
        response_timeout: Duration,
    ) -> Result<(Self, ServerId), RedisError> {
        let connecting = async {
            let stream = reach(server.addr()).await.map_err(RedisError::away)?;
            let received = Vec::with_capacity(RECEIVE_BYTES);
            let mut wire = Self { stream, received, response_timeout, answered_at: Instant::now() };
            wire.log_in(server).await?;
            let server = wire.ask_server().await?;
            Ok((wire, server))
        };
        timeout(connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(RedisError::Away(format!("no connection within {connect_timeout:?}"))))
    }

    async fn log_in(&mut self, server: &ConnectionInfo) -> Result<(), RedisError> {
        let settings = server.redis_settings();
        if let Some(password) = settings.password() {
            let user = settings.username().unwrap_or("default");
            self.expect_ok(&["AUTH", user, password]).await?;
        }
        if settings.db() != 0 {
            self.expect_ok(&["SELECT", &settings.db().to_string()]).await?;
        }
        Ok(())
    }

    /// Reads which Redis this is now.
    pub(super) async fn ask_server(&mut self) -> Result<ServerId, RedisError> {
        match self.ask(&["INFO", "server", "replication"]).await? {
            Received::Text(info) => ServerId::of_info(&String::from_utf8_lossy(info)),
            Received::Refusal(words) => Err(RedisError::Away(words.to_owned())),
            Received::Other => Err(RedisError::away("bad reply to INFO")),
        }
    }

    async fn expect_ok(&mut self, command: &[&str]) -> Result<(), RedisError> {
        match self.ask(command).await? {
            Received::Text(b"OK") => Ok(()),
            Received::Refusal(words) => Err(RedisError::Away(words.to_owned())),
            Received::Text(_) | Received::Other => Err(RedisError::away(format!("bad reply to {}", command[0]))),
        }
    }

    async fn ask(&mut self, command: &[&str]) -> Result<Received<'_>, RedisError> {
        let mut bytes = Vec::new();
        put_array(&mut bytes, command.len());
        for word in command {
            put_bulk(&mut bytes, word.as_bytes());
        }
        self.send(&bytes).await.map_err(RedisError::away)
    }

    /// Whether the other side has kept the idle connection open. Checks the socket without sending a command.
    pub(super) async fn is_open(&mut self) -> bool {
        let mut byte = [0];
        poll_fn(|context| {
            let mut byte = ReadBuf::new(&mut byte);
            // No command is pending, so readable data is an end, an error or an unexpected answer.
            Poll::Ready(Pin::new(&mut self.stream).poll_read(context, &mut byte).is_pending())
        })
        .await
    }

    /// Time since the last answer.
    pub(super) fn unused_for(&self) -> Duration {
        self.answered_at.elapsed()
    }

    /// Sends a command and waits for its answer. After an error, it is unknown whether Redis executed the command, and
    /// the connection must not be used again.
    pub(super) async fn send(&mut self, command: &[u8]) -> io::Result<Received<'_>> {
        self.received.clear();
        let exchange = async {
            self.stream.write_all(command).await?;
            loop {
                if let Some(length) = reply_length(&self.received) {
                    return Ok(length);
                }
                self.received.reserve(RECEIVE_BYTES);
                if self.stream.read_buf(&mut self.received).await? == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "Redis closed the connection"));
                }
            }
        };
        match timeout(self.response_timeout, exchange).await {
            Ok(Ok(length)) => {
                self.received.truncate(length);
                self.answered_at = Instant::now();
                Ok(self.received())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no reply in {:?}", self.response_timeout))),
        }
    }

    /// The answer to the last command.
    pub(super) fn received(&self) -> Received<'_> {
        read_reply(&self.received)
    }
}

async fn reach(address: &ConnectionAddr) -> io::Result<Box<dyn Stream>> {
    match address {
        ConnectionAddr::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // A call is one small write; waiting to fill a packet would only delay it.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        // `insecure` would accept any certificate.
        ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(tls::shake_hands(stream, host).await?))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("unsupported address {other}"))),
    }
}

/// The length of the reply at the start of these bytes, once it is complete.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = line_length(bytes)?;
    let complete = match bytes[0] {
        b'$' => line + length_of(&bytes[1..line - 2]).map_or(0, |length| length + 2),
        _ => line,
    };
    (bytes.len() >= complete).then_some(complete)
}

fn read_reply(bytes: &[u8]) -> Received<'_> {
    let Some(line) = line_length(bytes) else { return Received::Other };
    match bytes[0] {
        b'+' => Received::Text(&bytes[1..line - 2]),
        b'$' if bytes.len() > line => Received::Text(&bytes[line..bytes.len() - 2]),
        b'-' => std::str::from_utf8(&bytes[1..line - 2]).map_or(Received::Other, Received::Refusal),
        _ => Received::Other,
    }
}

/// Length of the first line, including its end.
fn line_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|two| two == b"\r\n").map(|at| at + 2)
}

/// Parses a length; none for `-1`, which means no string.
fn length_of(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends `*<length>`: that many strings follow.
pub(super) fn put_array(to: &mut Vec<u8>, length: usize) {
    put_length(to, b'*', length);
}

/// Appends one string.
pub(super) fn put_bulk(to: &mut Vec<u8>, bytes: &[u8]) {
    put_length(to, b'$', bytes.len());
    to.extend_from_slice(bytes);
    to.extend_from_slice(b"\r\n");
}

fn put_length(to: &mut Vec<u8>, kind: u8, length: usize) {
    to.push(kind);
    put_decimal(to, length);
    to.extend_from_slice(b"\r\n");
}

/// Appends a number without the overhead of `write!`: a call has hundreds of lengths.
pub(super) fn put_decimal(to: &mut Vec<u8>, number: usize) {
    if number >= 10 {
        put_decimal(to, number / 10);
    }
    to.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_complete_only_with_its_last_byte() {
        for reply in ["$5\r\na\r\nbc\r\n", "$0\r\n\r\n", "$-1\r\n", "+OK\r\n", "-NOSCRIPT No\r\n", ":12\r\n"] {
            let bytes = reply.as_bytes();
            for part in 0..bytes.len() {
                assert_eq!(reply_length(&bytes[..part]), None, "{part} bytes of {reply:?}");
            }
            assert_eq!(reply_length(bytes), Some(bytes.len()), "{reply:?}");
        }
    }

    #[test]
    fn replies_are_classified() {
        assert_eq!(read_reply(b"$5\r\na\r\nbc\r\n"), Received::Text(b"a\r\nbc"));
        assert_eq!(read_reply(b"+OK\r\n"), Received::Text(b"OK"));
        assert_eq!(read_reply(b"-OOM no memory\r\n"), Received::Refusal("OOM no memory"));
        assert_eq!(read_reply(b"$-1\r\n"), Received::Other);
        assert_eq!(read_reply(b":12\r\n"), Received::Other);
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut bytes = Vec::new();
        put_array(&mut bytes, 2);
        put_bulk(&mut bytes, b"GET");
        put_bulk(&mut bytes, &[b'k'; 123]);
        assert_eq!(bytes, [b"*2\r\n$3\r\nGET\r\n$123\r\n".as_slice(), &[b'k'; 123], b"\r\n"].concat());
    }
}
