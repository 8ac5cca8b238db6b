//! The gate: its use cases, as methods of [`Gate`].
//!
//! | module | contents |
//! | --- | --- |
//! | `message` | consume; reserve, extend, commit, release; what makes them safe to repeat: ids and idempotency |
//! | `grants` | gives, voids, transfers and lists grants, and sends them to Redis |
//! | `quota`, `levels` | reads a quota; changes a level, by an administrator or by billing |
//! | `call_path` | one operation: Redis, and Postgres for users whom Redis does not know, many in one query |
//! | `rollout` | for which users the gate decides while a product switches over |
//! | `decision_metrics` | metrics of decisions and charges |
//! | `opening`, `opening_pauses` | opens a partition, at the first start and after every loss of Redis data |
//! | `newer_journal` | entries that only a gate of a newer version can read |
//! | `one_redis` | refuses to serve while other gates serve from another Redis |
//! | `outage` | while Redis is unavailable: Postgres accepts settlements, and decides if the operator allows it |

mod decision_metrics;
mod error;
mod newer_journal;
mod one_redis;
mod opening;
mod opening_pauses;
mod quota;
mod request;
mod rollout;

mod call_path;
mod grants;
mod levels;
mod message;
mod outage;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub(crate) use self::one_redis::HEARTBEAT_PAUSE;
use self::{
    call_path::{loader::Loader, lookup::Lookups},
    decision_metrics::DecisionMetrics,
    newer_journal::NewerJournal,
    one_redis::OneRedis,
    opening::Openings,
    rollout::Switch,
};
pub use self::{
    error::GateError,
    grants::{GrantGiven, GrantVoided, TransferState, Transferred},
    levels::apply_levels::{ApplyError, ApplyProgress},
    message::reservation_id::ReservationSigner,
    newer_journal::reason as newer_journal_reason,
    outage::inbox::Applied,
    request::{ChangeLevel, ChangeUser, Commit, Consume, Reserve, Transfer},
    rollout::RolloutCounts,
};
use crate::{
    domain::{
        calendar::Calendar,
        clock::Clock,
        decision::OnRedisFailure,
        hold::Reservation,
        level::Levels,
        meter::MeterCode,
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
/// Cheap to clone, usable without HTTP. Any number of gates may share one Redis and one Postgres.
///
/// ```
/// # use quota_gate_dev::{PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions, ScratchDir};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = ScratchDir::new()?;
/// # let redis = RedisServer::start(&dir.path().join("redis"), RedisServerOptions::default()).await?;
/// # let postgres = PostgresServer::start(&dir.path().join("postgres"), PostgresServerOptions::default()).await?;
/// # let (database_url, redis_url) = (postgres.url("postgres"), redis.url());
/// # use quota_gate::runtime::{Runtime, RuntimeOptions};
/// # let options = RuntimeOptions::new(&database_url, &redis_url, &[7; 32])?;
/// # options.postgres.migrate().await?;
/// # let runtime = Runtime::start(options).await?;
/// # let gate = runtime.gate();
/// use quota_gate::{
///     domain::{
///         ap::Ap,
///         decision::{Decision, Settled},
///         hold::Ttl,
///         user_id::{SessionId, UserId},
///     },
///     gate::{Commit, Reserve},
/// };
///
/// let (user, session) = (UserId::parse("alice")?, SessionId::parse("chat-1")?);
/// let request = Reserve { user: user.clone(), session, ap: Ap::cost(5)?, ttl: Ttl::DEFAULT, idempotency_key: None };
/// let Decision::Allowed(reserved) = gate.reserve(request).await? else { return Ok(()) };
/// let id = gate.reservation_id(&reserved.reservation);
/// // … generate the answer, which turns out to cost 3 AP …
/// let commit = Commit { ap: Some(Ap::cost(3)?), ..Commit::default() };
/// let Settled::Now(done) = gate.commit(&id, commit).await? else { return Ok(()) };
/// assert_eq!(done.charged.get(), 3);
/// assert_eq!(gate.quota(&user).await?.remaining().get(), 97);
/// # runtime.shutdown(std::time::Duration::from_secs(20)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Gate(Arc<Inner>, MeterCode);

/// The parts of a gate.
#[derive(Debug)]
#[doc(hidden)]
pub struct GateParts {
    /// Store of records and the journal.
    pub redis: Redis,
    /// The script, [with Redis' own clock](Script::default) except in tests.
    pub script: Script,
    /// Durable store, the source of truth.
    pub postgres: Postgres,
    /// Partitions, fixed at the first start.
    pub partitions: Partitions,
    /// Months and days, in the product's time zone.
    pub calendar: Calendar,
    /// Clock of this machine.
    pub clock: Clock,
    /// Membership levels.
    pub levels: Levels,
    /// Signer of reservation ids.
    pub signer: ReservationSigner,
    /// Options of the request queues to Redis.
    pub batcher: BatcherOptions,
    /// Time for which an Idempotency-Key is remembered.
    pub idempotency_ttl: Duration,
    /// Answer to new messages while Redis is unavailable.
    pub on_redis_failure: OnRedisFailure,
    /// Time limit of one request, including the load of a cold user or an opening.
    pub deadline: Duration,
}

struct Inner {
    redis: Redis,
    postgres: Postgres,
    levels: SharedLevels,
    /// Held while a request reads levels that this gate does not know yet.
    reading_levels: tokio::sync::Mutex<()>,
    generations: Generations,
    batcher: Batcher,
    loader: Loader,
    lookups: Lookups,
    openings: Openings,
    newer_journal: NewerJournal,
    one_redis: OneRedis,
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
    /// If called outside a tokio runtime.
    #[must_use]
    #[doc(hidden)]
    pub fn start(parts: GateParts) -> Self {
        let GateParts { redis, script, postgres, partitions, calendar, clock, levels, signer, .. } = parts;
        let (levels, generations) = (SharedLevels::new(levels), Generations::unknown(partitions));
        let batcher = Batcher::start(&redis, &script, partitions, (&clock, calendar), &generations, &parts.batcher);
        let loader = Loader::start(&postgres, partitions, &clock, calendar);
        let inner = Inner {
            openings: Openings::new(partitions),
            newer_journal: NewerJournal::none(partitions),
            one_redis: OneRedis::new(redis.address()),
            switch: Switch::default(),
            decision_metrics: DecisionMetrics::default(),
            lookups: Lookups::start(&postgres, &clock, parts.idempotency_ttl),
            redis,
            postgres,
            levels,
            reading_levels: tokio::sync::Mutex::default(),
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
        };
        Self(Arc::new(inner), MeterCode::CHAT)
    }

    /// Returns the same gate, whose messages, quotas and grants are those of another meter.
    #[must_use]
    pub fn of_meter(&self, meter: MeterCode) -> Self {
        Self(Arc::clone(&self.0), meter)
    }

    /// The meter of this gate's messages, quotas and grants: that of the chat, unless
    /// [`of_meter`](Self::of_meter) has chosen another.
    #[must_use]
    pub fn meter(&self) -> MeterCode {
        self.1
    }

    /// Reads the generation of every partition, or opens it, so that the first messages need not wait. Sends the levels
    /// to partitions that a gate of an older release has opened.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable.
    pub async fn open_partitions(&self) -> Result<(), GateError> {
        for partition in self.0.partitions.all() {
            self.0.learn_generation(partition).await?;
        }
        self.sync_levels().await.map(|_| ())
    }

    /// Returns the signed id of a reservation, for clients.
    #[must_use]
    pub fn reservation_id(&self, reservation: &Reservation) -> String {
        self.0.signer.sign(reservation)
    }

    /// Returns the membership levels, as last read from Postgres.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.0.levels.get()
    }

    /// Returns months and days in the product's time zone.
    #[must_use]
    pub fn calendar(&self) -> Calendar {
        self.0.calendar
    }

    /// Returns the current time by this machine's clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    /// Returns the last generation of a partition that this gate has learned; 0 if none.
    #[must_use]
    pub fn generation(&self, partition: Partition) -> u32 {
        self.0.generations.get(partition)
    }

    /// Returns the store of records and the journal.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.0.redis
    }

    /// Returns the durable store.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.0.postgres
    }

    /// Returns the clock of this machine.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Returns the partitions of this installation.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.0.partitions
    }
}

impl Inner {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Returns a new id. It is time-ordered, so that rows of the same time are adjacent in every index.
    fn new_id(&self) -> Uuid {
        let now = self.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos()))
    }
}

impl Gate {
    /// Reads a reservation id, which must be of this gate's meter.
    fn read_reservation(&self, id: &str) -> Result<Reservation, GateError> {
        let reservation = self.0.signer.read(id).ok_or(GateError::UnknownReservation)?;
        if reservation.meter != self.1 {
            let levels = self.0.levels.get();
            let name = levels.meter(reservation.meter).map_or("chat", |meter| meter.name.as_str());
            return Err(GateError::OtherMeter(name.to_owned()));
        }
        Ok(reservation)
    }
}

impl From<RedisError> for GateError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Indeterminate(reason) => Self::Indeterminate { reason },
            RedisError::Away(_) | RedisError::Descriptors | RedisError::NotExecuted(_) | RedisError::OutOfMemory(_) => {
                Self::RedisAway { reason: error.to_string() }
            }
            RedisError::Forgotten => Self::Forgotten,
            error => Self::unavailable(error.to_string()),
        }
    }
}

impl From<PostgresError> for GateError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Forgotten(_) => Self::Forgotten,
            error => Self::unavailable(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("partitions", &self.0.partitions.count()).finish_non_exhaustive()
    }
}
