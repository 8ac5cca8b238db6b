//! A redis-server for one test.

use quota_gate_dev::{Lifetime, RedisServer, RedisServerOptions};

use super::scratch;

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
