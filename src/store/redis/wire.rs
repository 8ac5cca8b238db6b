//! A connection for calls of the script: one goes out, its answer comes back.
//!
//! The `redis` crate's shared connection hands every command to a task of its own and every answer back: two changes of task that a
//! lone caller would wait for (decision 0009). The batcher makes one call at a time, so its worker reads and writes the socket
//! itself. What goes over it is RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>, of which a
//! script's call needs arrays of strings out, and strings and errors in.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};

use super::{error::RedisError, fence::ServerId, tls};

/// A reply of the script is at most some 120 answers; this is what a first read asks for.
const RECEIVE_BYTES: usize = 16 * 1024;

/// A connection on which one command follows another's answer.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    response_timeout: Duration,
    answered_at: Instant,
}

/// What a command was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// `+…` or `$…`.
    Text(&'a [u8]),
    /// `-…`: Redis refused, in its own words.
    Refusal(&'a str),
    /// Anything else: nothing that a script of ours returns.
    Other,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Wire {
    /// Connects, logs in, chooses the database and asks which Redis this is. When this fails, nothing has happened.
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
            .unwrap_or_else(|_| Err(RedisError::Away(format!("no connection in {connect_timeout:?}"))))
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

    /// Which Redis this is now.
    pub(super) async fn ask_server(&mut self) -> Result<ServerId, RedisError> {
        match self.ask(&["INFO", "server", "replication"]).await? {
            Received::Text(info) => ServerId::of_info(&String::from_utf8_lossy(info)),
            Received::Refusal(words) => Err(RedisError::Away(words.to_owned())),
            Received::Other => Err(RedisError::away("odd answer to INFO")),
        }
    }

    async fn expect_ok(&mut self, command: &[&str]) -> Result<(), RedisError> {
        match self.ask(command).await? {
            Received::Text(b"OK") => Ok(()),
            Received::Refusal(words) => Err(RedisError::Away(words.to_owned())),
            Received::Text(_) | Received::Other => Err(RedisError::away(format!("odd answer to {}", command[0]))),
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

    /// Whether the other side has not closed the connection while nobody looked. Asks the socket, not Redis.
    pub(super) async fn is_open(&mut self) -> bool {
        let mut byte = [0];
        poll_fn(|context| {
            let mut byte = ReadBuf::new(&mut byte);
            // Nothing was asked, so anything that can be read is an end, an error, or an answer to nobody.
            Poll::Ready(Pin::new(&mut self.stream).poll_read(context, &mut byte).is_pending())
        })
        .await
    }

    /// Since the last answer.
    pub(super) fn unused_for(&self) -> Duration {
        self.answered_at.elapsed()
    }

    /// Sends a command and waits for its answer. After an error, whether Redis carried it out is open, and the connection is of
    /// no use any more.
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
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("none in {:?}", self.response_timeout))),
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
        // `insecure` would trust whoever answers.
        ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(tls::shake_hands(stream, host).await?))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("{other} is not reachable by this gate"))),
    }
}

/// The length of the reply that these bytes begin with, once all of it is there.
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

/// The first line, its end included.
fn line_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|two| two == b"\r\n").map(|at| at + 2)
}

/// None for `-1`, which stands for no string.
fn length_of(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `*<length>`: so many strings follow.
pub(super) fn put_array(to: &mut Vec<u8>, length: usize) {
    put_length(to, b'*', length);
}

/// One string.
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

/// Without the machinery of `write!`: a call has hundreds of lengths.
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
    fn a_reply_is_whole_only_with_its_last_byte() {
        for reply in ["$5\r\na\r\nbc\r\n", "$0\r\n\r\n", "$-1\r\n", "+OK\r\n", "-NOSCRIPT No\r\n", ":12\r\n"] {
            let bytes = reply.as_bytes();
            for part in 0..bytes.len() {
                assert_eq!(reply_length(&bytes[..part]), None, "{part} bytes of {reply:?}");
            }
            assert_eq!(reply_length(bytes), Some(bytes.len()), "{reply:?}");
        }
    }

    #[test]
    fn replies_are_told_apart() {
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
