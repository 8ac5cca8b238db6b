//! The gate: its use cases, one file each, as methods of [`Gate`].
//!
//! | file | what |
//! | --- | --- |
//! | `consume`, `reserve`, `extend`, `commit`, `release` | a message, in one step or in two |
//! | `quota`, `membership`, `subscription` | read a quota, change a level, by hand or by what billing says |
//! | `call` | the way of one operation: Redis, and Postgres where Redis does not know the user |
//! | `rollout` | for whom the gate decides, while a product switches over |
//! | `decision_metrics` | what was decided and charged, for the metrics |
//! | `loader` | brings cold users from Postgres, many in one query |
//! | `opening` | opens a partition: the first start, and the one way back after a loss |
//! | `inbox`, `degraded` | while Redis is away: settlements are accepted by Postgres; decisions too, if the operator says so |
//! | `reservation_id`, `idempotency` | what makes requests safe to repeat |

mod decision_metrics;
mod error;
mod opening;
mod quota;
mod request;
mod rollout;

mod call_path;
mod levels;
mod message;
mod outage;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use self::{call_path::loader::Loader, decision_metrics::DecisionMetrics, opening::Openings, rollout::Switch};
pub use self::{
    error::GateError,
    message::reservation_id::ReservationSigner,
    outage::inbox::Applied,
    request::{ChangeLevel, Commit, Consume, Reserve},
    rollout::RolloutCounts,
};
use crate::{
    domain::{
        calendar::Calendar,
        clock::Clock,
        decision::OnRedisFailure,
        hold::Reservation,
        level::Levels,
        partition::{Partition, Partitions},
    },
    store::{
        SharedLevels,
        postgres::{Postgres, PostgresError},
        redis::{Batcher, BatcherOptions, Generations, Redis, RedisError, Script},
    },
};

/// Decides whether users may send messages.
///
/// A cheap clone, usable without HTTP. Any number of gates may stand before one Redis and one Postgres.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

/// What a gate is made of.
#[derive(Debug)]
#[doc(hidden)]
pub struct GateParts {
    /// The store of records and the journal.
    pub redis: Redis,
    /// The script, [with Redis' own clock](Script::default) outside of tests.
    pub script: Script,
    /// The durable truth.
    pub postgres: Postgres,
    /// Fixed at the first start.
    pub partitions: Partitions,
    /// Months and days, in the product's time zone.
    pub calendar: Calendar,
    /// This machine's clock.
    pub clock: Clock,
    /// The membership levels.
    pub levels: Levels,
    /// Signs reservation ids.
    pub signer: ReservationSigner,
    /// How requests queue for Redis.
    pub batcher: BatcherOptions,
    /// How long an Idempotency-Key is remembered.
    pub idempotency_ttl: Duration,
    /// What to answer to new messages while Redis is away.
    pub on_redis_failure: OnRedisFailure,
    /// Longest time that one request may take, with a cold user or an opening on its way.
    pub deadline: Duration,
}

struct Inner {
    redis: Redis,
    postgres: Postgres,
    levels: SharedLevels,
    generations: Generations,
    batcher: Batcher,
    loader: Loader,
    openings: Openings,
    switch: Switch,
    decision_metrics: DecisionMetrics,
    partitions: Partitions,
    calendar: Calendar,
    clock: Clock,
    signer: ReservationSigner,
    idempotency_ttl: Duration,
    on_redis_failure: OnRedisFailure,
    deadline: Duration,
}

impl Gate {
    /// Starts a gate without its jobs, for tests and benchmarks that run single steps. Applications use
    /// [`Runtime::start`](crate::runtime::Runtime::start).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    #[doc(hidden)]
    pub fn start(parts: GateParts) -> Self {
        let GateParts { redis, script, postgres, partitions, calendar, clock, levels, signer, .. } = parts;
        let (levels, generations) = (SharedLevels::new(levels), Generations::unknown(partitions));
        let shared = (&levels, &generations);
        let batcher = Batcher::start(&redis, &script, partitions, (&clock, calendar), shared, &parts.batcher);
        let loader = Loader::start(&postgres, partitions, &clock, calendar, &levels);
        Self(Arc::new(Inner {
            openings: Openings::new(partitions),
            switch: Switch::default(),
            decision_metrics: DecisionMetrics::default(),
            redis,
            postgres,
            levels,
            generations,
            batcher,
            loader,
            partitions,
            calendar,
            clock,
            signer,
            idempotency_ttl: parts.idempotency_ttl,
            on_redis_failure: parts.on_redis_failure,
            deadline: parts.deadline,
        }))
    }

    /// Learns or opens every partition, so that the first messages need not wait for it.
    ///
    /// # Errors
    /// If Redis or Postgres is away.
    pub async fn open_partitions(&self) -> Result<(), GateError> {
        for partition in self.0.partitions.all() {
            self.0.learn_generation(partition).await?;
        }
        Ok(())
    }

    /// The signed text that names a reservation to clients.
    #[must_use]
    pub fn reservation_id(&self, reservation: &Reservation) -> String {
        self.0.signer.sign(reservation)
    }

    /// The membership levels.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.0.levels.get()
    }

    /// Takes over changed quotas. They hold from each user's next period.
    pub fn set_levels(&self, levels: Levels) {
        self.0.levels.set(levels);
    }

    /// Months and days, in the product's time zone.
    #[must_use]
    pub fn calendar(&self) -> Calendar {
        self.0.calendar
    }

    /// The present, by this machine's clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    /// The generation of a partition, as this gate believes it to be; 0 before it has asked.
    #[must_use]
    pub fn generation(&self, partition: Partition) -> u32 {
        self.0.generations.get(partition)
    }

    /// The store of records and the journal.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.0.redis
    }

    /// The durable truth.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.0.postgres
    }

    /// This machine's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The partitions of this installation.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.0.partitions
    }
}

impl Inner {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// A fresh id: time-ordered, so that rows of one time stand together in every index.
    fn new_id(&self) -> Uuid {
        let now = self.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos()))
    }

    fn read_reservation(&self, id: &str) -> Result<(Partition, Reservation), GateError> {
        let reservation = self.signer.read(id).ok_or(GateError::UnknownReservation)?;
        Ok((self.partitions.of(&reservation.user), reservation))
    }
}

impl From<RedisError> for GateError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Indeterminate(reason) => Self::Indeterminate { reason },
            RedisError::Away(_) | RedisError::NotExecuted(_) => Self::RedisAway { reason: error.to_string() },
            error => Self::unavailable(error.to_string()),
        }
    }
}

impl From<PostgresError> for GateError {
    fn from(error: PostgresError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("partitions", &self.0.partitions.count()).finish_non_exhaustive()
    }
}
