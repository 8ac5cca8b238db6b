//! What a runtime is started with. The defaults are those of the program's configuration.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::{BeforeStep, StartError};
use crate::{
    audit::health::HealthLimits,
    domain::{
        ap::Ap,
        daily_at::DailyAt,
        decision::OnRedisFailure,
        level::{LevelName, LevelTerms},
        meter::MeterLevels,
        partition::Partitions,
        rollout::Rollout,
    },
    jobs::{flusher::FlusherOptions, rollout_sync::ReadRollout},
    store::{
        postgres::{Postgres, PostgresOptions},
        redis::{BatcherOptions, Redis, RedisOptions},
    },
};

/// Options of a [`Runtime`](super::Runtime).
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// The store of records and the journal.
    pub redis: Redis,
    /// The durable truth.
    pub postgres: Postgres,
    /// Number of partitions. Fixed by the first start of an installation.
    pub partitions: Partitions,
    /// The time zone in which days and months end. Fixed by the first start of an installation.
    pub time_zone: Tz,
    /// Names and monthly quotas of the levels of a new installation. New users get the lowest. Later, the levels are
    /// those in Postgres, and only [`Gate::apply_levels`](crate::gate::Gate::apply_levels) changes them.
    pub levels: Vec<(LevelName, LevelTerms)>,
    /// Meters beside the chat. A start stores those that the installation does not have; later only
    /// [`Gate::apply_meters`](crate::gate::Gate::apply_meters) changes them.
    pub meters: Vec<MeterLevels>,
    /// Signs reservation ids: at least 32 bytes, the same for every gate of the installation.
    pub reservation_secret: Vec<u8>,
    /// How requests queue for Redis.
    pub batcher: BatcherOptions,
    /// How long an idempotency key is remembered.
    pub idempotency_ttl: Duration,
    /// The decision about new messages while Redis is unavailable.
    pub on_redis_failure: OnRedisFailure,
    /// Longest time for one decision when a user has to be loaded or a partition opened.
    pub decision_timeout: Duration,
    /// The jobs of this process.
    pub jobs: JobOptions,
}

/// Options of the jobs. The presence, the inbox worker, the level sync, the rollout sync and the
/// quota watcher run in every process.
#[derive(Clone)]
pub struct JobOptions {
    /// The flusher. At least one process of an installation must have one.
    pub flusher: Option<FlusherOptions>,
    /// Time of the daily run of the resetter; none if something else calls it.
    pub reset_daily_at: Option<DailyAt>,
    /// Reads the operator's rollout, every second.
    pub rollout: ReadRollout,
    /// Publishes gauges for the installed metrics recorder.
    pub gauges: bool,
    /// What counts as late.
    pub health: HealthLimits,
    /// Is called before each step of a job. Tests make jobs fail with it.
    pub before_step: BeforeStep,
}

impl RuntimeOptions {
    /// Returns the defaults with these stores: levels free (100 AP a month), basic (300), plus (1,000) and pro (3,000);
    /// four partitions; UTC.
    ///
    /// # Errors
    /// If a URL is invalid.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(database_url: &str, redis_url: &str, reservation_secret: &[u8]) -> Result<Self, StartError> {
        let level = |(name, quota)| Ok((LevelName::parse(name)?, Ap::new(quota).into()));
        let levels = [("free", 100), ("basic", 300), ("plus", 1_000), ("pro", 3_000)];
        Ok(Self {
            redis: Redis::new(&RedisOptions::new(redis_url))?,
            postgres: Postgres::new(&PostgresOptions::new(database_url))?,
            partitions: Partitions::new(4)?,
            time_zone: Tz::UTC,
            levels: levels.into_iter().map(level).collect::<Result<_, StartError>>()?,
            meters: Vec::new(),
            reservation_secret: reservation_secret.to_vec(),
            batcher: BatcherOptions::default(),
            idempotency_ttl: Duration::from_hours(24),
            on_redis_failure: OnRedisFailure::Deny,
            decision_timeout: Duration::from_secs(8),
            jobs: JobOptions::default(),
        })
    }
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            flusher: Some(FlusherOptions::default()),
            reset_daily_at: Some(DailyAt::default()),
            rollout: Arc::new(|| Ok(Rollout::default())),
            gauges: false,
            health: HealthLimits::default(),
            before_step: BeforeStep::default(),
        }
    }
}

impl Default for FlusherOptions {
    fn default() -> Self {
        Self { interval: Duration::from_millis(200), batch_events_max: 10_000, stream_bytes_alarm: 32 << 20 }
    }
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self { reset_overdue_after: TimeDelta::hours(26), flush_lag_max: TimeDelta::seconds(60) }
    }
}

impl std::fmt::Debug for JobOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobOptions")
            .field("flusher", &self.flusher)
            .field("reset_daily_at", &self.reset_daily_at)
            .field("gauges", &self.gauges)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}
