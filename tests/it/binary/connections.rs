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

/// Number of descriptors that the gate keeps for its stores, as it logs it.
fn reserved_descriptors(log: &str) -> usize {
    let (_, rest) = log.split_once("file descriptors; it needs ").expect("a log line about descriptors");
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// Number of connections to this address that its process has accepted. Those in the queue of the socket have no inode.
fn accepted(address: &str) -> usize {
    let port = format!(":{:04X}", address.rsplit(':').next().unwrap().parse::<u16>().unwrap());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let established = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|fields| {
        let [local, state, inode] = [1, 3, 9].map(|at| fields.get(at).copied().unwrap_or_default());
        local.ends_with(&port) && state == "01" && inode != "0"
    });
    established.count()
}

#[tokio::test]
async fn clients_leave_descriptors_for_the_stores() {
    raise_limit();
    let world = World::new().await;
    // A limit below the connections that are configured. The shell sets it for the gate.
    let gate = Serve::on_with_descriptors(&world.database, &world.redis.url(), 300).await;
    // After it has said where it listens.
    let warning = "the process may have 300 file descriptors";
    eventually("the gate says that it may have few descriptors", async || gate.log().contains(warning)).await;
    let address = gate.url.trim_start_matches("http://").to_owned();
    let charge = async |user: &str| {
        let body = json!({"userUuid": user, "sessionId": "s"});
        gate.post("/api/chat/quota/consume", body).await.0.as_u16()
    };
    // This connection stays open.
    assert_eq!(charge("first").await, 200);
    let _clients = connect(&address, 600).await;
    let clients_max = 300 - reserved_descriptors(&gate.log());
    eventually("the gate has all the clients that it accepts", async || accepted(&address) == clients_max).await;
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
