//! Starts a gate: checks both stores and the installation, then opens the partitions.

use super::RuntimeOptions;
use crate::{
    domain::{InvalidInput, calendar::Calendar, clock::Clock},
    gate::{Gate, GateError, GateParts, ReservationSigner},
    store::{
        postgres::{PostgresError, Settings},
        redis::{RedisError, Script},
    },
};

/// Months of the usage log for which tables are made at the start, besides the current one.
const LOG_MONTHS_AHEAD: u32 = 1;

/// Why a gate does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is invalid.
    #[error("{0}")]
    Invalid(#[from] InvalidInput),
    /// Postgres is unavailable, its tables are not up to date, or it belongs to another installation.
    #[error("Postgres: {0}")]
    Postgres(#[from] PostgresError),
    /// Redis is unavailable, or must not keep charges.
    #[error("Redis is not fit to keep charges: {0}")]
    Redis(#[from] RedisError),
    /// A partition could not be opened.
    #[error("the partitions cannot be opened: {0}")]
    Partitions(#[source] GateError),
    /// The gate could not report that it runs.
    #[error("the gate cannot report that it runs: {0}")]
    Presence(#[source] GateError),
    /// The rollout could not be read.
    #[error("the rollout cannot be read: {0}")]
    Rollout(#[source] PostgresError),
}

/// Starts a gate without its jobs, for tools that do one thing and end.
///
/// # Errors
/// [`StartError`] says what is wrong and what to do.
#[doc(hidden)]
pub async fn start_gate(options: RuntimeOptions) -> Result<Gate, StartError> {
    let RuntimeOptions { redis, postgres, partitions, time_zone, .. } = options;
    let clock = Clock::machine();
    postgres.check_schema().await?;
    postgres.settle_settings(&Settings { partitions, time_zone }).await?;
    postgres.ensure_watermarks(partitions, clock.now()).await?;
    let levels = postgres.sync_levels(&options.levels, clock.now()).await?;
    postgres.ensure_log_partitions(clock.now(), LOG_MONTHS_AHEAD).await?;
    redis.check_fitness().await?;
    let gate = Gate::start(GateParts {
        redis,
        script: Script::default(),
        postgres,
        partitions,
        calendar: Calendar::new(time_zone),
        clock,
        levels,
        signer: ReservationSigner::new(&options.reservation_secret)?,
        batcher: options.batcher,
        idempotency_ttl: options.idempotency_ttl,
        on_redis_failure: options.on_redis_failure,
        deadline: options.decision_timeout,
    });
    gate.open_partitions().await.map_err(StartError::Partitions)?;
    Ok(gate)
}
