//! Information about the Redis server, for the checks at start, the metrics and `quota-gate doctor`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{connection::Redis, error::RedisError};
use crate::domain::clock::instant;

/// Minimum major version: the first one with functions.
pub const VERSION_MIN: u32 = 7;

/// Information about the Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServerInfo {
    /// Version, for example `7.0.15`. A Valkey answers with the version of Redis that it is compatible with.
    pub version: String,
    /// Name and own version, for example `Redis 7.0.15` or `Valkey 9.1.2`.
    pub product: String,
    /// Whether it is a primary, not a replica.
    pub is_primary: bool,
    /// Behavior when its memory is full.
    pub maxmemory_policy: String,
    /// Whether it writes commands to disk, so that a restart loses little.
    pub appendonly: bool,
    /// Memory in use, in bytes.
    pub used_memory: u64,
    /// Memory limit, in bytes; 0 for none.
    pub maxmemory: u64,
    /// Time of its clock.
    pub time: DateTime<Utc>,
}

impl Redis {
    /// Reads the information.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn server_info(&self) -> Result<RedisServerInfo, RedisError> {
        let mut connection = self.connection().await?;
        let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        let time: (i64, i64) =
            redis::cmd("TIME").query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let field = |name: &str| fields.get(name).copied().unwrap_or("unknown");
        let number = |name: &str| field(name).parse().unwrap_or_default();
        let product = match fields.get("valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", field("redis_version")),
        };
        Ok(RedisServerInfo {
            product,
            version: field("redis_version").to_owned(),
            is_primary: field("role") == "master",
            maxmemory_policy: field("maxmemory_policy").to_owned(),
            appendonly: field("aof_enabled") == "1",
            used_memory: number("used_memory"),
            maxmemory: number("maxmemory"),
            time: instant(time.0 * 1000 + time.1 / 1000),
        })
    }

    /// Checks that Redis is fit to keep charges.
    ///
    /// # Errors
    /// If Redis is unfit or does not answer. The message contains what to change.
    pub async fn check_fitness(&self) -> Result<(), RedisError> {
        let server_info = self.server_info().await?;
        if let Some(wrong) = server_info.unfit() {
            return Err(RedisError::Unfit(wrong));
        }
        let missing = self.missing_rights().await?;
        if !missing.is_empty() {
            return Err(RedisError::Unfit(format!(
                "the gate's Redis user may not run {}: give it the rights of deploy/redis/users.acl",
                missing.join(", ")
            )));
        }
        if !server_info.appendonly {
            tracing::warn!("Redis runs without appendonly: a restart loses all charges that are not flushed yet");
        }
        Ok(())
    }
}

impl RedisServerInfo {
    /// Why a gate must not use this Redis, and what to change.
    #[must_use]
    pub fn unfit(&self) -> Option<String> {
        let Self { version, maxmemory_policy, .. } = self;
        if maxmemory_policy != "noeviction" {
            return Some(format!(
                "Redis runs with maxmemory-policy {maxmemory_policy}, which may evict a user's record: set maxmemory-policy noeviction"
            ));
        }
        if !self.is_primary {
            return Some("this Redis is a replica: point REDIS_URL to the primary".into());
        }
        let major = version.split('.').next().and_then(|part| part.parse::<u32>().ok());
        major
            .is_none_or(|major| major < VERSION_MIN)
            .then(|| format!("Redis {version} is too old: the gate needs {VERSION_MIN}.0 or newer"))
    }
}
