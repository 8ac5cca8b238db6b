//! The stores, and what else the gate connects to, as configured.

use crate::{
    config::{self, Config, ms},
    outbox::old_credits::{OldCredits, OldCreditsOptions},
};
use quota_gate::store::{
    postgres::{Postgres, PostgresOptions, Settings},
    redis::{Redis, RedisOptions},
};

/// Connections besides those of the batcher's workers: for flushing, opening and looking.
const REDIS_CONNECTIONS_MAX: usize = 8;

/// Postgres, as configured.
///
/// # Errors
/// If its URL is missing or is none.
pub fn postgres(config: &Config) -> anyhow::Result<Postgres> {
    let url = config
        .postgres
        .url
        .required("postgres.url", "set DATABASE_URL, for example postgres://user:password@host/database")?;
    let postgres = Postgres::new(&PostgresOptions {
        url: url.to_owned(),
        connections_max: config.postgres.connections_max,
        acquire_timeout: ms(config.postgres.acquire_timeout_ms),
        statement_timeout: ms(config.postgres.statement_timeout_ms),
    })?;
    Ok(if config.dual_write.url.is_empty() { postgres } else { postgres.with_dual_write() })
}

/// The old credits system, if there is one.
///
/// # Errors
/// If its URL is none.
pub fn old_credits(config: &Config) -> anyhow::Result<Option<OldCredits>> {
    let config::DualWrite { url, token, timeout_ms, .. } = &config.dual_write;
    if url.is_empty() {
        return Ok(None);
    }
    let options = OldCreditsOptions { url, token: token.expose(), timeout: ms(*timeout_ms) };
    Ok(Some(OldCredits::new(&options)?))
}

/// Postgres, as configured, of the installation that the configuration means.
///
/// # Errors
/// If it was set up with other partitions or another time zone.
pub async fn settled_postgres(config: &Config) -> anyhow::Result<Postgres> {
    let postgres = postgres(config)?;
    postgres.check_schema().await?;
    let settings = Settings { partitions: config.partitions()?, time_zone: config.time_zone()? };
    postgres.settle_settings(&settings).await?;
    Ok(postgres)
}

/// Redis, as configured.
///
/// # Errors
/// If its URL is missing or is none.
pub fn redis(config: &Config) -> anyhow::Result<Redis> {
    let url = config.redis.url.required("redis.url", "set REDIS_URL, for example redis://:password@host:6379")?;
    Ok(Redis::new(&RedisOptions {
        url: url.to_owned(),
        connections_max: REDIS_CONNECTIONS_MAX,
        connect_timeout: ms(config.redis.connect_timeout_ms),
        response_timeout: ms(config.redis.response_timeout_ms),
    })?)
}
