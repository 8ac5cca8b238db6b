//! Redis at full speed: calls prepared in advance, on connections that pipeline them and count the replies.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use quota_gate::{
    domain::{ap::Ap, clock::Clock, meter::MeterCode, usage::Tokens, user_id::UserId},
    gate::Gate,
    store::redis::{Context, Memory, Operation, Request, Script, ServerId},
};
use quota_gate_dev::RedisServer;
use redis::Cmd;
use uuid::Uuid;

use super::stores::session;

/// A connection that pipelines calls and counts the replies.
pub(crate) struct Pipe {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Pipe {
    pub(crate) fn open(server: &RedisServer) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.set_nodelay(true)?;
        let mut pipe = Self { stream, buffer: vec![0; 1 << 20], filled: 0 };
        pipe.send(format!("AUTH operator {}\r\n", server.password()).as_bytes())?;
        pipe.receive(1)?;
        Ok(pipe)
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits for this many replies: strings, numbers, or flat arrays of them.
    fn receive(&mut self, replies: usize) -> anyhow::Result<()> {
        let (mut at, mut awaited) = (0, replies);
        while awaited > 0 {
            if let Some(length) = reply_end(&self.buffer[at..self.filled])? {
                at += length;
                awaited -= 1;
            } else {
                let read = self.stream.read(&mut self.buffer[self.filled..])?;
                anyhow::ensure!(read > 0, "Redis closed the connection");
                self.filled += read;
            }
        }
        anyhow::ensure!(at == self.filled, "Redis sent more replies than expected");
        self.filled = 0;
        Ok(())
    }
}

/// Keeps one block in flight on each connection for this long. Returns the number of blocks and the time taken.
pub(crate) fn drive(
    pipes: &mut [Pipe],
    blocks: &[Vec<u8>],
    replies: usize,
    time: Duration,
) -> anyhow::Result<(usize, Duration)> {
    let (mut turn, started) = (0, Instant::now());
    for pipe in &mut *pipes {
        pipe.send(&blocks[turn % blocks.len()])?;
        turn += 1;
    }
    while started.elapsed() < time {
        for pipe in &mut *pipes {
            pipe.receive(replies)?;
            pipe.send(&blocks[turn % blocks.len()])?;
            turn += 1;
        }
    }
    for pipe in &mut *pipes {
        pipe.receive(replies)?;
    }
    Ok((turn, started.elapsed()))
}

/// Measures the upper limit of the script: calls of `size` consumes each, two in flight, on the partitions that a gate
/// has opened. Returns consumes per second.
pub(crate) fn ceiling(
    server: &RedisServer,
    gate: &Gate,
    users: &[UserId],
    size: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let blocks = calls(&server_id(server)?, gate, users, size, 256);
    let mut pipes = vec![Pipe::open(server)?, Pipe::open(server)?];
    let (turns, elapsed) = drive(&mut pipes, &blocks, 1, time)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
    Ok((turns * size) as f64 / elapsed.as_secs_f64())
}

/// Encodes calls of `size` consumes each. They are valid for a minute, because a call contains its caller's time.
fn calls(server: &ServerId, gate: &Gate, users: &[UserId], size: usize, count: usize) -> Vec<Vec<u8>> {
    let script = Script::default();
    let mut by_partition = vec![vec![]; gate.partitions().count().into()];
    for user in users {
        by_partition[gate.partitions().of(user).index()].push(user);
    }
    let mut pick = fastrand::Rng::with_seed(7);
    let partitions: Vec<_> = gate.partitions().all().collect();
    let call = |number: usize| {
        let partition = partitions[number % partitions.len()];
        let users = &by_partition[partition.index()];
        let requests: Vec<Request> = (0..size).map(|_| consume(users[pick.usize(..users.len())])).collect();
        let context = Context {
            partition,
            generation: 1,
            server,
            now: Clock::machine().now(),
            calendar: gate.calendar(),
            stream_bytes_max: u64::from(u32::MAX),
            memory: Memory::Limited,
        };
        script.command(&context, &requests)
    };
    (0..count).map(call).collect()
}

/// Returns calls of one consume each, for the `redis` crate. They are valid for a minute.
pub(crate) fn decisions(server: &RedisServer, gate: &Gate, users: &[UserId]) -> anyhow::Result<Arc<[Cmd]>> {
    let words = |bytes: &[u8]| {
        let (count, mut rest) = length(bytes);
        let mut command = Cmd::new();
        for _ in 0..count {
            let (length, after) = length(rest);
            command.arg(&after[..length]);
            rest = &after[length + 2..];
        }
        command
    };
    Ok(calls(&server_id(server)?, gate, users, 1, 4096).iter().map(|bytes| words(bytes)).collect())
}

/// Reads the server id, as a gate does from each Redis that it connects to.
pub(crate) fn server_id(server: &RedisServer) -> anyhow::Result<ServerId> {
    let mut connection = redis::Client::open(server.url())?.get_connection()?;
    let info: String = redis::cmd("INFO").arg("server").arg("replication").query(&mut connection)?;
    Ok(ServerId::of_info(&info)?)
}

/// Parses `*3` or `$12`, and returns the number and what follows the line.
fn length(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line");
    let digits = std::str::from_utf8(&bytes[1..end]).expect("digits");
    (digits.parse().expect("a length"), &bytes[end + 2..])
}

/// Returns a request to consume one AP.
pub(crate) fn consume(user: &UserId) -> Request {
    let operation = Operation::Consume {
        cost: Ap::ONE,
        event: Uuid::from_u128(7),
        session: session(),
        tokens: Tokens::default(),
        model: None,
        idempotency: None,
    };
    Request { user: user.clone(), meter: MeterCode::CHAT, operation, seed: None, generation: None }
}

fn reply_end(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1) else { return Ok(None) };
    let length = || anyhow::Ok(std::str::from_utf8(&bytes[1..line - 2])?.parse::<usize>()?);
    let end = match bytes[0] {
        b'$' => line + length()? + 2,
        b'*' => {
            let mut at = line;
            for _ in 0..length()? {
                let Some(item) = reply_end(&bytes[at..])? else { return Ok(None) };
                at += item;
            }
            at
        }
        b'-' => anyhow::bail!("Redis refused: {}", String::from_utf8_lossy(&bytes[..line])),
        _ => line,
    };
    Ok((end <= bytes.len()).then_some(end))
}
