//! A minimal HTTP client, so the server dominates the measurement: requests are encoded in advance, and only status and
//! length of an answer are parsed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::gate_process::SERVICE_TOKEN;

/// One persistent connection.
pub(crate) struct HttpClient {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl HttpClient {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and waits for its whole answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            self.received.reserve(4096);
            anyhow::ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the server closed the connection");
            if let Some((status, head, length)) = parse_head(&self.received)?
                && self.received.len() >= head + length
            {
                return Ok(Answer { status, body: &self.received[head..head + length] });
            }
        }
    }
}

/// Sends each request once and expects a 200, so that later requests measure the hot path.
pub(crate) async fn send_all(address: SocketAddr, requests: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let requests: Arc<[Vec<u8>]> = requests.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = JoinSet::new();
    for _ in 0..64 {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        let mut client = HttpClient::connect(address).await?;
        connections.spawn(async move {
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = client.send(request).await?;
                anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(answer.body));
            }
            Ok(())
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    Ok(())
}

/// Encodes a request for a user's quota.
pub(crate) fn quota(user: &str) -> Vec<u8> {
    request("GET", "/api/chat/quota", &format!("x-user-id: {user}\r\n"), "")
}

/// Returns status, length of the head, and length of the body. `None` if the head is incomplete.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = std::str::from_utf8(length.context("the answer has no content-length")?.value)?.parse()?;
    Ok(Some((response.code.unwrap_or(0), head, length)))
}

/// Encodes a request of a chat service.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {SERVICE_TOKEN}\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Encodes a request to charge a message.
pub(crate) fn consume(user: &str) -> Vec<u8> {
    let body = format!(r#"{{"userUuid":"{user}","sessionId":"chat-42","ap":1,"tokens":412}}"#);
    request("POST", "/api/chat/quota/consume", "", &body)
}
