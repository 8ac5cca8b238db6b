//! Many connections: more than the accept loop keeps up with, and more than the process has file descriptors for.

use std::fs;

use futures_util::future::try_join_all;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::process::Serve;
use crate::support::{World, eventually};

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

#[tokio::test]
async fn clients_leave_descriptors_for_the_stores() {
    raise_limit();
    let world = World::new().await;
    // A limit below the connections that are configured. The shell sets it for the gate.
    let gate = Serve::on_with_descriptors(&world.database, &world.redis.url(), 300).await;
    assert!(gate.log().contains("the process may have 300 file descriptors"), "{}", gate.log());
    let address = gate.url.trim_start_matches("http://").to_owned();
    let charge = async |user: &str| {
        let body = json!({"userUuid": user, "sessionId": "s"});
        gate.post("/api/chat/quota/consume", body).await.0.as_u16()
    };
    // This connection stays open.
    assert_eq!(charge("first").await, 200);
    let _clients = connect(&address, 600).await;
    let open = || fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count();
    let (mut before, mut same) = (0, 0);
    eventually("the gate accepts no more clients", async || {
        let now = open();
        same = if now == before && now > 150 { same + 1 } else { 0 };
        before = now;
        same > 40
    })
    .await;
    // The gate must connect to Postgres again.
    world
        .number(
            "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity
             where datname = current_database() and application_name = 'quota-gate'",
        )
        .await;
    eventually("a new user is loaded over a new connection", async || charge("second").await == 200).await;
    assert!(!gate.log().contains("no file descriptors left"), "{}", gate.log());
}
