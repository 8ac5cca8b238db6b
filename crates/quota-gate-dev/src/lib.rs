//! Private servers: a redis-server and a Postgres of one's own, as child processes, and a model server in this process.
//!
//! `quota-gate dev` and every integration test decide against the real servers, so both start them here: on free
//! ports of 127.0.0.1, with a random password, in a directory of their own. Any number of copies runs side by side,
//! and none outlives the process that started it, however that process ends.
//!
//! What the servers hold (migrations, sample users) is left to the caller, and so is every connection to them: this
//! module knows the servers as programs, not as stores.
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
mod port;
mod postgres_cluster;
mod postgres_server;
mod program;
mod redis_server;
mod scratch_dir;
mod server_log;

pub use data_dir::DataDir;
pub use error::DevError;
pub use model_server::{LOCAL_MODEL, ModelServer};
pub use postgres_server::{Durability, PostgresServer, PostgresServerOptions};
pub use redis_server::{AppendOnly, RedisServer, RedisServerOptions};
pub use scratch_dir::ScratchDir;

/// What is to become of a server's data when its owner is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// It is used again: the server is stopped in good order.
    #[default]
    Kept,
    /// Nobody will read it: the server is stopped at once.
    Scratch,
}
