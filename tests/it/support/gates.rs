//! Gates under test: any number of them on one Redis and one database, with the machine's clock or a manual one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use quota_gate::{
    audit::{
        repair::Repairer,
        replay::Replayer,
        verify::{Verdict, Verifier},
    },
    domain::{
        ap::Ap,
        calendar::Calendar,
        clock::Clock,
        decision::{Charged, Decision, OnRedisFailure},
        idempotency::IdempotencyKey,
        level::{LevelName, LevelTerms},
        meter::MeterLevels,
        partition::Partitions,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    gate::{Consume, Gate, GateError, GateParts, ReservationSigner, Reserve},
    jobs::{
        flusher::{Flusher, FlusherOptions},
        inbox_worker::InboxWorker,
        job::{self, Job},
        resetter::Resetter,
        sweeper::Sweeper,
    },
    store::{
        postgres::{Postgres, PostgresOptions, Settings},
        redis::{BatcherOptions, Redis, RedisOptions, Script},
    },
};
use quota_gate_dev::RedisServer;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio_util::sync::CancellationToken;

use super::{database, redis as redis_server};

/// Redis key of the manual clock's time.
const CLOCK_KEY: &str = "qg:test:now_ms";
/// Replaces the script's first file, so that the script reads the manual clock.
const CLOCK: &str = "local function read_clock() return tonumber(redis.call('GET', 'qg:test:now_ms')) end\n";

/// Two stores, and the settings that all gates on them share.
pub(crate) struct World {
    pub(crate) redis: RedisServer,
    pub(crate) database: String,
    pub(crate) pool: PgPool,
    pub(crate) clock: Clock,
    zone: &'static str,
    partitions: u16,
    manual: bool,
}

/// The settings in which gates may differ.
pub(crate) struct Tuning {
    pub(crate) batcher: BatcherOptions,
    pub(crate) response_timeout: Duration,
    pub(crate) on_redis_failure: OnRedisFailure,
    pub(crate) deadline: Duration,
    pub(crate) postgres_connections: u32,
    pub(crate) acquire_timeout: Duration,
    /// The default is the Redis of the world.
    pub(crate) redis_url: Option<String>,
    /// Secret that signs reservation ids.
    pub(crate) secret: [u8; 32],
    /// Formats of journal entries that the gate can read, if it is of an older version.
    pub(crate) reads_formats_to: Option<u8>,
    /// Levels of the gate's configuration.
    pub(crate) levels: Vec<(LevelName, LevelTerms)>,
    /// Meters of the gate's configuration, beside the chat.
    pub(crate) meters: Vec<MeterLevels>,
}

impl Default for Tuning {
    fn default() -> Self {
        let batcher = BatcherOptions {
            operations_max: 64,
            calls_in_flight_max: 2,
            queue_length_max: 4096,
            queue_timeout: Duration::from_secs(5),
            stream_bytes_max: 64 << 20,
            identity_trust: Duration::from_millis(500),
        };
        let on_redis_failure = OnRedisFailure::Deny;
        let (response_timeout, deadline) = (Duration::from_secs(5), Duration::from_secs(15));
        Self {
            batcher,
            response_timeout,
            on_redis_failure,
            deadline,
            postgres_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            redis_url: None,
            secret: [7; 32],
            reads_formats_to: None,
            levels: levels(&[("free", 100), ("basic", 300), ("plus", 1000), ("pro", 3000)]),
            meters: Vec::new(),
        }
    }
}

/// A gate and its jobs.
#[derive(Clone)]
pub(crate) struct GateUnderTest {
    pub(crate) gate: Gate,
    pub(crate) flusher: Flusher,
    pub(crate) resetter: Resetter,
    pub(crate) sweeper: Sweeper,
    pub(crate) verifier: Verifier,
    pub(crate) inbox_worker: InboxWorker,
    pub(crate) repairer: Repairer,
    pub(crate) replayer: Replayer,
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
}

impl World {
    /// Starts fresh stores with the machine's clock.
    pub(crate) async fn new() -> Self {
        Self::with(Clock::machine(), false, "UTC").await
    }

    /// Starts fresh stores with a manual clock.
    pub(crate) async fn at(now: &str, zone: &'static str) -> Self {
        let world = Self::with(Clock::manual(now.parse().expect("an instant")), true, zone).await;
        world.set_time(now).await;
        world
    }

    /// Changes the number of partitions, before the first gate starts.
    pub(crate) fn with_partitions(self, partitions: u16) -> Self {
        Self { partitions, ..self }
    }

    async fn with(clock: Clock, manual: bool, zone: &'static str) -> Self {
        Self::on(database().await, clock, manual, zone).await
    }

    /// Starts a fresh Redis beside this database.
    pub(crate) async fn on(database: String, clock: Clock, manual: bool, zone: &'static str) -> Self {
        Self::of(redis_server().await, database, clock, manual, zone)
    }

    /// Uses these stores, with the machine's clock.
    pub(crate) fn of_stores(redis: RedisServer, database: String) -> Self {
        Self::of(redis, database, Clock::machine(), false, "UTC")
    }

    fn of(redis: RedisServer, database: String, clock: Clock, manual: bool, zone: &'static str) -> Self {
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&database).expect("a valid URL");
        Self { redis, database, pool, clock, zone, partitions: 2, manual }
    }

    /// Sets the clock of Redis and of every gate.
    pub(crate) async fn set_time(&self, now: &str) {
        let now: DateTime<Utc> = now.parse().expect("an instant");
        self.clock.set(now);
        self.set_redis_time(now).await;
    }

    /// Like [`Self::set_time`], but returns false if Redis does not answer.
    pub(crate) async fn try_set_time(&self, now: &str) -> bool {
        let now: DateTime<Utc> = now.parse().expect("an instant");
        self.clock.set(now);
        let Ok(client) = redis::Client::open(self.redis.operator_url()) else { return false };
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
        let mut set = redis::cmd("SET");
        set.arg(CLOCK_KEY).arg(now.timestamp_millis());
        set.query_async::<()>(&mut connection).await.is_ok()
    }

    /// Sets only the clock of Redis.
    pub(crate) async fn set_redis_time(&self, now: DateTime<Utc>) {
        let _: () = redis::cmd("SET")
            .arg(CLOCK_KEY)
            .arg(now.timestamp_millis())
            .query_async(&mut self.redis_connection().await)
            .await
            .expect("Redis answers");
    }

    /// Opens a connection with all rights.
    pub(crate) async fn redis_connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.redis.operator_url()).expect("a valid URL");
        client.get_multiplexed_async_connection().await.expect("Redis answers")
    }

    /// Starts a gate.
    pub(crate) async fn gate(&self) -> GateUnderTest {
        self.gate_with(|_| {}).await
    }

    /// Starts a gate with this timeout for Redis.
    pub(crate) async fn impatient_gate(&self, response_timeout: Duration) -> GateUnderTest {
        self.gate_with(|tuning| tuning.response_timeout = response_timeout).await
    }

    /// Starts a gate with changed settings.
    pub(crate) async fn gate_with(&self, change: impl FnOnce(&mut Tuning)) -> GateUnderTest {
        let mut tuning = Tuning::default();
        change(&mut tuning);
        let postgres = Postgres::new(&PostgresOptions {
            url: self.database.clone(),
            connections_max: tuning.postgres_connections,
            acquire_timeout: tuning.acquire_timeout,
            statement_timeout: Duration::from_secs(30),
        })
        .expect("a valid URL");
        let calendar = Calendar::new(self.zone.parse().expect("a time zone"));
        let partitions = Partitions::new(self.partitions).expect("a number of partitions");
        let now = self.clock.now();
        let settings = Settings { partitions, time_zone: calendar.time_zone() };
        postgres.settle_settings(&settings).await.expect("the settings agree");
        postgres.ensure_watermarks(partitions, now).await.expect("Postgres answers");
        postgres.seed_levels(&tuning.levels, now).await.expect("Postgres answers");
        let levels = postgres.seed_meters(&tuning.meters, now).await.expect("Postgres answers");
        let redis = Redis::new(&RedisOptions {
            url: tuning.redis_url.unwrap_or_else(|| self.redis.url()),
            connections_max: 16,
            connect_timeout: Duration::from_secs(2),
            response_timeout: tuning.response_timeout,
        })
        .expect("a valid URL");
        let redis = match tuning.reads_formats_to {
            Some(format) => redis.reading_formats_to(format),
            None => redis,
        };
        let gate = Gate::start(GateParts {
            redis: redis.clone(),
            script: if self.manual { Script::with_clock(CLOCK) } else { Script::default() },
            postgres: postgres.clone(),
            partitions,
            calendar,
            clock: self.clock.clone(),
            levels,
            signer: ReservationSigner::new(&tuning.secret).expect("a secret"),
            batcher: tuning.batcher,
            idempotency_ttl: Duration::from_hours(24),
            on_redis_failure: tuning.on_redis_failure,
            deadline: tuning.deadline,
        });
        let options =
            FlusherOptions { interval: Duration::from_millis(5), batch_events_max: 100, ..FlusherOptions::default() };
        let flusher = Flusher::new(gate.clone(), options);
        let resetter = Resetter::new(&gate);
        let sweeper = Sweeper::new(&gate);
        let inbox_worker = InboxWorker::new(&gate);
        let verifier = Verifier::new(&gate);
        let repairer = Repairer::new(&gate);
        let replayer = Replayer { postgres: postgres.clone(), calendar, clock: self.clock.clone() };
        gate.open_partitions().await.expect("the partitions open");
        GateUnderTest { gate, flusher, resetter, sweeper, verifier, inbox_worker, repairer, replayer, redis, postgres }
    }

    /// Connects as another role, which must exist, with the password `x`.
    pub(crate) fn pool_of(&self, role: &str) -> PgPool {
        let options: PgConnectOptions = self.database.parse().expect("a valid URL");
        PgPoolOptions::new().max_connections(1).connect_lazy_with(options.username(role).password("x"))
    }

    /// Returns the number that a query selects. The query is the test's own text, so it is safe.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        let number: Option<i64> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&self.pool).await.expect("the query runs");
        number.unwrap_or_default()
    }
}

impl GateUnderTest {
    /// Charges one message.
    pub(crate) async fn consume(&self, who: &str, ap: i64) -> Result<Decision<Charged>, GateError> {
        self.gate.consume(consume(who, ap)).await
    }

    /// Charges one message and returns whether it was allowed.
    pub(crate) async fn charges(&self, who: &str, ap: i64) -> bool {
        matches!(self.consume(who, ap).await.expect("a decision"), Decision::Allowed(_))
    }

    /// Flushes and asserts that the stores agree.
    pub(crate) async fn flush_and_verify(&self) -> Verdict {
        self.flusher.flush_all().await.expect("everything is flushed");
        let verdict = self.verifier.verify().await.expect("both stores answer");
        assert!(verdict.agrees(), "{verdict:#?}");
        assert_eq!(verdict.unflushed, 0);
        verdict
    }
}

/// Levels as a configuration has them.
pub(crate) fn levels(given: &[(&str, u32)]) -> Vec<(LevelName, LevelTerms)> {
    given.iter().map(|(name, quota)| (LevelName::parse(name).expect("a name"), Ap::new(*quota).into())).collect()
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a user id")
}

pub(crate) fn session() -> SessionId {
    SessionId::parse("chat-1").expect("a session id")
}

pub(crate) fn consume(who: &str, ap: i64) -> Consume {
    Consume {
        user: user(who),
        session: session(),
        ap: Ap::cost(ap).expect("a cost"),
        tokens: Tokens::default(),
        model: None,
        idempotency_key: None,
    }
}

pub(crate) fn reserve(who: &str, ap: i64, ttl_seconds: i64) -> Reserve {
    Reserve {
        user: user(who),
        session: session(),
        ap: Ap::cost(ap).expect("a cost"),
        ttl: quota_gate::domain::hold::Ttl::from_seconds(ttl_seconds).expect("a time to live"),
        idempotency_key: None,
    }
}

pub(crate) fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).expect("a key")
}

/// Repeats the steps of a job until cancelled, then finishes it.
pub(crate) fn repeat<J: Job>(job: J, cancelled: &CancellationToken) -> impl Future<Output = ()> + Send + 'static {
    let stop = cancelled.clone();
    async move { job::repeat(job, stop, &|_| {}).await }
}
