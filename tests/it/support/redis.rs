//! A redis-server for one test.

use quota_gate_dev::{Lifetime, RedisServer, RedisServerOptions};

use super::scratch;

/// Starts a server with an append-only file, so a test may kill and restart it.
pub(crate) async fn redis() -> RedisServer {
    let options = RedisServerOptions { lifetime: Lifetime::Scratch, ..RedisServerOptions::default() };
    RedisServer::start(&scratch("redis"), options).await.expect("redis-server starts")
}
