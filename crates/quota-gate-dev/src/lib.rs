//! Private servers: redis-server and Postgres as child processes, and a model server in this process.
//!
//! `quota-gate dev` and every integration test need real servers, so both start them here: on free ports of 127.0.0.1,
//! with a random password, each in its own directory. Any number of them can run concurrently. None outlives the
//! process that started it, however that process ends.
//!
//! This crate only runs the programs. The caller connects to them and fills them (migrations, sample users).
//!
//! ```no_run
//! # async fn example() -> Result<(), quota_gate_dev::DevError> {
//! use quota_gate_dev::{DataDir, PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions};
//!
//! let data = DataDir::open(".quota-gate".as_ref())?;
//! let redis = RedisServer::start(&data.redis(), RedisServerOptions::default()).await?;
//! let postgres = PostgresServer::start(&data.postgres(), PostgresServerOptions::default()).await?;
//! postgres.create_database("quota_gate").await?;
//! println!("{} {}", redis.url(), postgres.url("quota_gate"));
//! # Ok(())
//! # }
//! ```

mod account;
mod data_dir;
mod error;
mod guarded_child;
mod model_server;
mod password;
mod pgbouncer;
mod port;
mod postgres_cluster;
mod postgres_server;
mod program;
mod redis_accounts;
mod redis_server;
mod scratch_dir;
mod server_log;

pub use data_dir::DataDir;
pub use error::DevError;
pub use model_server::{LOCAL_MODEL, ModelServer};
pub use pgbouncer::{PgBouncer, PgBouncerOptions, PoolMode};
pub use postgres_server::{Durability, PostgresServer, PostgresServerOptions};
pub use redis_server::{AppendOnly, RedisServer, RedisServerOptions};
pub use scratch_dir::ScratchDir;

/// Whether a server's data is used again after its owner has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// The data is used again: the server is stopped cleanly.
    #[default]
    Kept,
    /// The data is not read again: the server is stopped immediately.
    Scratch,
}
