//! Clients that could exhaust the gate: slow or silent ones, floods of headers or requests.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::process::{Dev, Serve};
use crate::support::eventually;

async fn connect(gate: &Serve) -> TcpStream {
    TcpStream::connect(gate.url.trim_start_matches("http://")).await.unwrap()
}

/// Reads until the gate closes the connection.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut text)).await.expect("the gate closes the connection").ok();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn slow_silent_and_oversized_clients_are_cut_off_while_others_are_served() {
    let dev = Dev::start().await;
    let gate = Serve::start_with(
        &dev,
        &[("QUOTA_GATE__SERVER__HEADER_READ_TIMEOUT_MS", "300"), ("QUOTA_GATE__SERVER__REQUEST_TIMEOUT_MS", "800")],
    )
    .await;
    // A client that sends nothing, and a head that never ends.
    let mut silent = connect(&gate).await;
    let mut slow = connect(&gate).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: ga").await.unwrap();
    // A keep-alive connection without a further request.
    let mut kept = connect(&gate).await;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n").await.unwrap();
    // A head that is too large, and a head with too many headers.
    let mut large = connect(&gate).await;
    let _ = large.write_all(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000)).as_bytes()).await;
    let mut many = connect(&gate).await;
    let headers: String = (0..200).fold(String::new(), |head, n| head + &format!("x-{n}: y\r\n"));
    let _ = many.write_all(format!("GET / HTTP/1.1\r\nhost: gate\r\n{headers}\r\n").as_bytes()).await;
    // A body that is never completed.
    let mut bodiless = connect(&gate).await;
    let token = dev.text("serviceToken");
    let head = format!(
        "POST /api/chat/quota/consume HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 60\r\nconnection: close\r\n\r\n{{"
    );
    bodiless.write_all(head.as_bytes()).await.unwrap();

    let (status, _) = gate.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s"})).await;
    assert_eq!(status.as_u16(), 200, "others are served meanwhile");
    assert_eq!(answer(&mut silent).await, "");
    let slow = answer(&mut slow).await;
    assert!(slow.is_empty() || slow.contains("408"), "{slow}");
    assert!(answer(&mut kept).await.starts_with("HTTP/1.1 200"));
    for flood in [&mut large, &mut many] {
        let answer = answer(flood).await;
        assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    }
    let answer = answer(&mut bodiless).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("took too long"), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_and_frees_its_connection() {
    let dev = Dev::start().await;
    let gate = Serve::start_with(
        &dev,
        &[("QUOTA_GATE__SERVER__CONNECTIONS_MAX", "1"), ("QUOTA_GATE__SERVER__WRITE_STALL_TIMEOUT_MS", "300")],
    )
    .await;
    let mut deaf = connect(&gate).await;
    // The answers far exceed the buffers of an unread connection.
    let asked = b"GET /openapi.json HTTP/1.1\r\nhost: gate\r\n\r\n".repeat(300);
    deaf.write_all(&asked).await.unwrap();
    let consume = gate.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s"}));
    let (status, _) = timeout(Duration::from_secs(20), consume).await.expect("others are served");
    assert_eq!(status.as_u16(), 200);
}

#[tokio::test]
async fn a_gate_at_its_connection_limit_stops_on_sigterm() {
    let dev = Dev::start().await;
    let mut gate = Serve::start_with(
        &dev,
        &[("QUOTA_GATE__SERVER__CONNECTIONS_MAX", "2"), ("QUOTA_GATE__SERVER__HEADER_READ_TIMEOUT_MS", "600000")],
    )
    .await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut connection = connect(&gate).await;
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        kept.push(connection);
    }
    gate.signal(Signal::SIGTERM);
    eventually("the gate ends", async || gate.ended().is_some_and(|status| status.success())).await;
}

#[tokio::test]
async fn a_client_over_its_rate_limit_gets_429_and_others_do_not() {
    let dev = Dev::start().await;
    let gate = Serve::start_with(
        &dev,
        &[("QUOTA_GATE__RATE_LIMITS__PER_TOKEN", "5"), ("QUOTA_GATE__RATE_LIMITS__UNAUTHENTICATED_PER_ADDRESS", "3")],
    )
    .await;
    let consume = async || gate.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s"})).await;
    eventually("the token is limited", async || {
        let (status, body) = consume().await;
        status.as_u16() == 429 && body["code"] == "RATE_LIMITED"
    })
    .await;
    eventually("a client that guesses tokens is limited", async || {
        let guess = gate.service(reqwest::Method::GET, "/api/chat/quota").bearer_auth("a guess");
        guess.send().await.unwrap().status().as_u16() == 429
    })
    .await;
    eventually("the token is accepted again", async || consume().await.0.as_u16() == 200).await;
    assert_eq!(gate.service(reqwest::Method::GET, "/healthz").send().await.unwrap().status().as_u16(), 200);
}
