//! Redis servers for one test.

use std::fs;

use quota_gate_dev::{Lifetime, RedisServer, RedisServerOptions};

use super::{eventually, scratch};

/// Starts a server with an append-only file, so a test may kill and restart it.
pub(crate) async fn redis() -> RedisServer {
    RedisServer::start(&scratch("redis"), options()).await.expect("redis-server starts")
}

/// Starts another, empty server with the same password.
pub(crate) async fn redis_like(first: &RedisServer) -> RedisServer {
    let dir = scratch("redis");
    fs::create_dir_all(&dir).expect("a new directory");
    fs::copy(first.dir().join("password"), dir.join("password")).expect("a password");
    RedisServer::start(&dir, options()).await.expect("redis-server starts")
}

/// Starts a replica of a server and waits until it has all data.
pub(crate) async fn replica_of(primary: &RedisServer) -> RedisServer {
    let replica = redis_like(primary).await;
    let password = fs::read_to_string(primary.dir().join("password")).expect("a password");
    // Each may become the other's replica.
    for server in [primary, &replica] {
        send::<()>(server, &["CONFIG", "SET", "masterauth", password.trim()]).await;
    }
    send::<()>(&replica, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    eventually("the replica has all data", async || {
        send::<String>(&replica, &["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    replica
}

/// Sends a command to a server.
pub(crate) async fn send<T: redis::FromRedisValue>(server: &RedisServer, command: &[&str]) -> T {
    let client = redis::Client::open(server.url()).expect("a valid URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    redis::Cmd::new().arg(command).query_async(&mut connection).await.expect("Redis executes the command")
}

fn options() -> RedisServerOptions {
    RedisServerOptions { lifetime: Lifetime::Scratch, ..RedisServerOptions::default() }
}
