//! Connections to Redis, all with timeouts.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, PoolConfig, Timeouts};
use redis::{AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo};

use super::{error::RedisError, fence::ServerId, usage_stream::READS_FORMATS_TO, wire::Wire};

/// Redis, with a connection pool. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    pool: Pool,
    server: ConnectionInfo,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// Formats of journal entries that can be read, up to this one.
    pub(super) reads_formats_to: u8,
}

/// Options for connecting to Redis.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://[user[:password]@]host[:port][/db]`.
    pub url: String,
    /// Maximum pooled connections. Each batcher worker has its own in addition.
    pub connections_max: usize,
    /// Time to wait for a connection.
    pub connect_timeout: Duration,
    /// Time to wait for an answer. After that, the outcome is unknown.
    pub response_timeout: Duration,
}

impl RedisOptions {
    /// Returns the defaults for this URL.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            // For flushes, openings and reads; the batcher has its own.
            connections_max: 8,
            connect_timeout: Duration::from_millis(400),
            response_timeout: Duration::from_millis(400),
        }
    }
}

impl Redis {
    /// Creates a pool without connecting.
    ///
    /// # Errors
    /// If the URL is not a Redis URL.
    pub fn new(options: &RedisOptions) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout));
        let no_url = |error| RedisError::Unfit(format!("REDIS_URL is not a Redis URL: {error}"));
        let server = options.url.as_str().into_connection_info().map_err(no_url)?;
        // Redis 7.0 cannot grant CLIENT SETINFO, and later ones would log each refusal.
        let settings = server.redis_settings().clone().set_skip_set_lib_name();
        let server = server.set_redis_settings(settings);
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
        Ok(Self {
            pool,
            server,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
            reads_formats_to: READS_FORMATS_TO,
        })
    }

    /// Reads the journal as a gate of an older version, which knows only formats up to this one. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn reading_formats_to(self, format: u8) -> Self {
        Self { reads_formats_to: format, ..self }
    }

    /// A pooled connection, for a short task.
    pub(super) async fn connection(&self) -> Result<deadpool_redis::Connection, RedisError> {
        self.pool.get().await.map_err(RedisError::away)
    }

    /// A new connection for script calls, and the Redis that it leads to.
    pub(super) async fn wire(&self) -> Result<(Wire, ServerId), RedisError> {
        Wire::connect(&self.server, self.connect_timeout, self.response_timeout).await
    }

    /// Returns the id of the Redis that answers now.
    ///
    /// # Errors
    /// If it does not answer or is a replica.
    pub async fn server_id(&self) -> Result<ServerId, RedisError> {
        Ok(self.wire().await?.1)
    }

    /// Host and port of this Redis, or the path of its socket; without credentials.
    #[must_use]
    pub fn address(&self) -> String {
        self.server.addr().to_string()
    }

    /// Whether Redis accepts connections and is a primary.
    pub(super) async fn serves(&self) -> bool {
        self.wire().await.is_ok()
    }

    /// Checks that Redis answers.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ping(&self) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        redis::cmd("PING").query_async(&mut connection).await.map_err(RedisError::not_executed)
    }

    /// Number of pooled connections: all and idle.
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
