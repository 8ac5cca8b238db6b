//! Many connections: more than the accept loop keeps up with, and more than the process has file descriptors for.

use std::fs;

use futures_util::future::try_join_all;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::process::Serve;
use crate::support::World;

const CONNECTIONS: usize = 5_000;

/// Allows this process as many descriptors as it may have. Its clients are half of the connections.
fn raise_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard > 6_000, "this test needs 6,000 descriptors, but the limit is {hard}");
}

async fn connect(address: &str, count: usize) -> Vec<TcpStream> {
    let connecting = try_join_all((0..count).map(|_| TcpStream::connect(address)));
    timeout(std::time::Duration::from_secs(20), connecting)
        .await
        .expect("each connection finds a place in the queue")
        .unwrap()
}

#[tokio::test]
async fn five_thousand_clients_connect_while_the_accept_loop_is_slow() {
    raise_limit();
    let world = World::new().await;
    let settings =
        [("QUOTA_GATE__ENVOY__LISTEN", "127.0.0.1:0"), ("QUOTA_GATE__SERVER__HEADER_READ_TIMEOUT_MS", "60000")];
    let gate = Serve::on(&world.database, &world.redis.url(), &settings).await;
    let http = gate.url.trim_start_matches("http://").to_owned();
    let envoy = gate.log().lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["listen_for_envoy"].as_str()?.to_owned())
    });
    let system: usize = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let queued = system.min(4_096);
    // A process that is stopped accepts nothing: each connection waits in the queue of its socket.
    gate.signal(Signal::SIGSTOP);
    let mut clients = connect(&http, queued).await;
    let for_envoy = connect(&envoy.unwrap(), queued.min(1_000)).await;
    gate.signal(Signal::SIGCONT);
    clients.extend(connect(&http, CONNECTIONS - queued).await);
    drop(for_envoy);
    let answers = clients.into_iter().map(async |mut client| {
        client.write_all(b"GET /healthz HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    });
    let answered = try_join_all(answers).await.unwrap();
    assert_eq!(answered.iter().filter(|answered| **answered).count(), CONNECTIONS);
}
