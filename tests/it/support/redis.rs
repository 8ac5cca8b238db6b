//! Redis servers for one test.

use std::fs;

use quota_gate_dev::{Lifetime, RedisServer, RedisServerOptions};

use super::{eventually, scratch};

/// Starts a server with an append-only file, so a test may kill and restart it. Gates use the account that they have in
/// production; a test may do everything with [`RedisServer::operator_url`].
pub(crate) async fn redis() -> RedisServer {
    RedisServer::start(&scratch("redis"), redis_options()).await.expect("redis-server starts")
}

/// Options of a server for one test, with every shipped account enabled.
pub(crate) fn redis_options() -> RedisServerOptions {
    RedisServerOptions {
        lifetime: Lifetime::Scratch,
        accounts: ["admin", "replica", "exporter"].map(str::to_owned).to_vec(),
        operator: true,
        ..RedisServerOptions::default()
    }
}

/// Starts another, empty server with the same password.
pub(crate) async fn redis_like(first: &RedisServer) -> RedisServer {
    let dir = scratch("redis");
    fs::create_dir_all(&dir).expect("a new directory");
    fs::copy(first.dir().join("password"), dir.join("password")).expect("a password");
    RedisServer::start(&dir, redis_options()).await.expect("redis-server starts")
}

/// Starts a replica of a server and waits until it has all data.
pub(crate) async fn replica_of(primary: &RedisServer) -> RedisServer {
    let replica = redis_like(primary).await;
    // Each may become the other's replica.
    for server in [primary, &replica] {
        send::<()>(server, &["CONFIG", "SET", "masteruser", "replica", "masterauth", primary.password()]).await;
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
    let client = redis::Client::open(server.operator_url()).expect("a valid URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    redis::Cmd::new().arg(command).query_async(&mut connection).await.expect("Redis executes the command")
}
