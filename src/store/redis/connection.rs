//! How Redis is reached, with every timeout set.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, PoolConfig, Timeouts};
use redis::{AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo};

use super::{error::RedisError, fence::ServerId, wire::Wire};

/// Redis, with a pool of connections. A cheap clone.
#[derive(Clone)]
pub struct Redis {
    pool: Pool,
    server: ConnectionInfo,
    connect_timeout: Duration,
    response_timeout: Duration,
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://[user[:password]@]host[:port][/db]`.
    pub url: String,
    /// Most connections of the pool. Each worker of the batcher has one of its own besides.
    pub connections_max: usize,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for an answer. After that the outcome is unknown.
    pub response_timeout: Duration,
}

impl RedisOptions {
    /// The defaults for this URL.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            // Besides the batcher's: for flushes, openings and reads.
            connections_max: 8,
            connect_timeout: Duration::from_millis(400),
            response_timeout: Duration::from_millis(400),
        }
    }
}

impl Redis {
    /// Prepares a pool. Nothing is sent yet.
    ///
    /// # Errors
    /// If the URL is no Redis URL.
    pub fn new(options: &RedisOptions) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout));
        let no_url = |error| RedisError::Unfit(format!("REDIS_URL is no Redis URL: {error}"));
        let server = options.url.as_str().into_connection_info().map_err(no_url)?;
        let manager = Manager::new_with_config(server.clone(), config).map_err(no_url)?;
        let timeouts = Timeouts {
            wait: Some(options.connect_timeout),
            create: Some(options.connect_timeout),
            recycle: Some(options.connect_timeout),
        };
        let pool = Pool::builder(manager)
            .config(PoolConfig { max_size: options.connections_max, timeouts, ..PoolConfig::default() })
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(RedisError::not_executed)?;
        Ok(Self { pool, server, connect_timeout: options.connect_timeout, response_timeout: options.response_timeout })
    }

    /// A connection of the pool, for one short piece of work.
    pub(super) async fn connection(&self) -> Result<deadpool_redis::Connection, RedisError> {
        self.pool.get().await.map_err(RedisError::away)
    }

    /// A new connection for calls of the script, and which Redis it leads to.
    pub(super) async fn wire(&self) -> Result<(Wire, ServerId), RedisError> {
        Wire::connect(&self.server, self.connect_timeout, self.response_timeout).await
    }

    /// Which Redis this is now.
    ///
    /// # Errors
    /// If it does not answer, or is a replica.
    pub async fn server_id(&self) -> Result<ServerId, RedisError> {
        Ok(self.wire().await?.1)
    }

    /// Does it serve?
    pub(super) async fn serves(&self) -> bool {
        self.wire().await.is_ok()
    }

    /// Is Redis there?
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ping(&self) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        redis::cmd("PING").query_async(&mut connection).await.map_err(RedisError::not_executed)
    }

    /// Connections of the pool: all of them, and those that nobody uses.
    #[must_use]
    pub fn pool_connections(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}
