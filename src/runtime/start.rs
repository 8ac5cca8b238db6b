//! Starts a gate: checks both stores and the installation, then opens the partitions.

use super::RuntimeOptions;
use crate::{
    domain::{
        InvalidInput,
        calendar::Calendar,
        clock::Clock,
        level::{LevelName, LevelTerms, Levels},
        meter::MeterLevels,
    },
    gate::{Gate, GateError, GateParts, ReservationSigner},
    jobs::log_partitions::MONTHS_AHEAD,
    store::{
        postgres::{PostgresError, Settings},
        redis::{RedisError, Script},
    },
};

/// Why a gate does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// Postgres is unavailable, its tables are not up to date, or it belongs to another installation.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Redis is unavailable, or must not keep charges.
    #[error(transparent)]
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
    postgres.seed_levels(&options.levels, clock.now()).await?;
    let levels = postgres.seed_meters(&options.meters, clock.now()).await?;
    warn_of_differences(&levels, &options.levels, &options.meters);
    // What a reader blocks, the job creates later. Until then, rows go to the default partition.
    postgres.ensure_log_partitions(clock.now(), MONTHS_AHEAD).await?;
    redis.check_fitness().await?;
    let script = Script::default();
    script.load(&redis).await?;
    let gate = Gate::start(GateParts {
        redis,
        script,
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

/// The levels of the installation count; the configuration is what `quota-gate levels apply` would make of them.
fn warn_of_differences(levels: &Levels, configured: &[(LevelName, LevelTerms)], meters: &[MeterLevels]) {
    let of_levels = levels.differences(configured).into_iter().map(|difference| difference.to_string());
    let of_meters = levels.meter_differences(meters).into_iter().map(|difference| difference.to_string());
    let differences: Vec<String> = of_levels.chain(of_meters).collect();
    if !differences.is_empty() {
        tracing::warn!(
            differences = differences.join("; "),
            "[levels] or [meters] of this gate's configuration is not what Postgres has; Postgres' levels are used. To change the \
             levels of the installation to these, run `quota-gate levels apply` with this configuration"
        );
    }
}
