//! Random histories of operations give the same answers, numbers and journal as the model, across days and months, with
//! one or many operations per call. A failure shrinks to the shortest history that shows it.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use proptest::{prelude::*, test_runner::TestCaseError};
use quota_gate::{
    domain::{
        ap::Ap,
        calendar::Calendar,
        clock::Clock,
        hold::{Reservation, Ttl},
        idempotency::IdempotencyKey,
        journal::StreamId,
        level::{Level, LevelCode, LevelName, Levels},
        partition::{Partition, Partitions},
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    store::redis::{
        Answer, Batcher, BatcherOptions, Generations, Idempotency, Operation, Redis, RedisOptions, ReplyStatus,
        Request, Script, Seed, UserLevel,
    },
};
use uuid::Uuid;

use super::model::{Event, Expected, Hold, KEPT_SECONDS, Model, Numbers};
use crate::support;

const CLOCK_KEY: &str = "qg:test:now_ms";
/// Replaces the script's first file, so that the script reads the manual clock.
const CLOCK: &str = "local function read_clock() return tonumber(redis.call('GET', 'qg:test:now_ms')) end\n";

/// One step of a history. Holds and keys are small numbers, so that steps often use the same one.
#[derive(Debug, Clone)]
enum Step {
    Consume {
        cost: u32,
        key: Option<u8>,
    },
    Reserve {
        cost: u32,
        ttl_seconds: u16,
        key: Option<u8>,
    },
    Extend {
        hold: u8,
        ttl_seconds: u16,
    },
    /// With `accepted_seconds_ago`, Postgres accepted it then, while Redis was unavailable.
    Commit {
        hold: u8,
        ap: u32,
        accepted_seconds_ago: Option<u16>,
    },
    Release {
        hold: u8,
    },
    Peek,
    SetLevel {
        level: u8,
        pending: Option<u8>,
        version_step: i8,
        own_quota: Option<u32>,
        blocked: bool,
    },
    /// Sends the operations so far in one call, then moves the clock.
    Pass {
        seconds: i64,
    },
    /// The same, to just before or after the month's end.
    PassToMonthEnd {
        seconds_after: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cost = prop_oneof![8 => 1..8_u32, 2 => 20..60_u32, 1 => Just(1_000_000)];
    let key = proptest::option::weighted(0.3, 0..4_u8);
    let ttl = prop_oneof![Just(1_u16), Just(60), Just(900)];
    let hold = 0..6_u8;
    let accepted = prop_oneof![Just(0_u16), Just(1), Just(61), Just(601), Just(1_201)];
    let step = prop_oneof![
        6 => (cost.clone(), key.clone()).prop_map(|(cost, key)| Step::Consume { cost, key }),
        6 => (cost.clone(), ttl.clone(), key).prop_map(|(cost, ttl_seconds, key)| Step::Reserve { cost, ttl_seconds, key }),
        2 => (hold.clone(), ttl).prop_map(|(hold, ttl_seconds)| Step::Extend { hold, ttl_seconds }),
        5 => (hold.clone(), cost, proptest::option::weighted(0.3, accepted))
            .prop_map(|(hold, ap, accepted_seconds_ago)| Step::Commit { hold, ap, accepted_seconds_ago }),
        2 => hold.prop_map(|hold| Step::Release { hold }),
        1 => Just(Step::Peek),
        2 => (1..=3_u8, proptest::option::of(1..=3_u8), -1..3_i8, proptest::option::weighted(0.3, 0..200_u32), proptest::bool::weighted(0.2))
            .prop_map(|(level, pending, version_step, own_quota, blocked)| {
                Step::SetLevel { level, pending, version_step, own_quota, blocked }
            }),
        4 => prop_oneof![Just(0), Just(1), Just(59), Just(61), Just(599), Just(601), Just(86_400), Just(40 * 86_400)]
            .prop_map(|seconds| Step::Pass { seconds }),
        2 => (-2..3_i64).prop_map(|seconds_after| Step::PassToMonthEnd { seconds_after }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The real script, and everything needed to call it.
pub(super) struct Harness {
    redis: Redis,
    batcher: Batcher,
    clock: Clock,
    calendar: Calendar,
    levels: Levels,
    partitions: Partitions,
}

fn levels() -> Levels {
    let level = |code, name, quota| Level {
        code: LevelCode::new(code).unwrap(),
        name: LevelName::parse(name).unwrap(),
        quota: Ap::new(quota),
        retired: false,
    };
    Levels::new(1, vec![level(1, "free", 40), level(2, "basic", 90), level(3, "plus", 300)]).unwrap()
}

impl Harness {
    pub(super) async fn start(url: &str, zone: &str) -> Self {
        let options = RedisOptions {
            url: url.to_owned(),
            connections_max: 8,
            connect_timeout: std::time::Duration::from_secs(5),
            response_timeout: std::time::Duration::from_secs(5),
        };
        let redis = Redis::new(&options).unwrap();
        let partitions = Partitions::new(1).unwrap();
        let clock = Clock::manual(DateTime::default());
        let calendar = Calendar::new(zone.parse().unwrap());
        let batching = BatcherOptions {
            operations_max: 64,
            calls_in_flight_max: 1,
            queue_length_max: 1_000,
            queue_timeout: std::time::Duration::from_secs(5),
            stream_bytes_max: 64 << 20,
            identity_trust: std::time::Duration::from_secs(5),
        };
        let levels = levels();
        let generations = Generations::unknown(partitions);
        let script = Script::with_clock(CLOCK);
        let batcher = Batcher::start(&redis, &script, partitions, (&clock, calendar), &generations, &batching);
        let this = Self { redis, batcher, clock, calendar, levels, partitions };
        let mut draining = this.redis.drain(this.partition(), &[], None).await.unwrap();
        assert!(draining.next().await.unwrap().is_none());
        let drained = draining.ended().unwrap();
        assert!(this.redis.open(this.partition(), 1, &drained, &this.levels).await.unwrap().is_some());
        generations.learn(this.partition(), 1, None);
        this
    }

    fn partition(&self) -> Partition {
        self.partitions.all().next().unwrap()
    }

    pub(super) async fn set_time(&self, connection: &mut redis::aio::MultiplexedConnection, now: DateTime<Utc>) {
        let _: () = redis::cmd("SET").arg(CLOCK_KEY).arg(now.timestamp_millis()).query_async(connection).await.unwrap();
        self.clock.set(now);
    }

    /// Sends the operations in one call, in this order.
    pub(super) async fn send(&self, user: &UserId, seed: Option<Seed>, operations: Vec<Operation>) -> Vec<Answer> {
        let requests = operations.into_iter().map(|operation| {
            let request = Request { user: user.clone(), operation, seed, generation: None };
            self.batcher.call(self.partition(), request)
        });
        join_all(requests).await.into_iter().map(|answer| answer.unwrap().expect("the user is in Redis")).collect()
    }
}

fn seen(answer: &Answer) -> Expected {
    let record = &answer.record;
    Expected {
        status: answer.status,
        replayed: answer.replayed,
        late: answer.late,
        charged: answer.charged.get(),
        overage: answer.overage.get(),
        numbers: Numbers {
            period: record.period,
            level: record.level,
            quota: record.quota.get(),
            used: record.used.get(),
            held: record.held.get(),
            total_used: record.total_used,
            used_today: record.used_today.get(),
        },
    }
}

pub(super) fn fresh_id() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Uuid::from_u128(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

/// One user's history under test.
struct History<'a> {
    harness: &'a Harness,
    user: UserId,
    model: Model,
    now: DateTime<Utc>,
    /// The reservations that a client would store, numbered by position.
    reservations: Vec<Hold>,
    level_version: u32,
    calls: Vec<Operation>,
    expected: Vec<Expected>,
}

impl History<'_> {
    fn apply(&mut self, step: &Step) {
        let now = self.now;
        let (operation, expected) = match *step {
            Step::Consume { cost, key } => {
                let event = fresh_id();
                let kept = key.map(|key| format!("c{key}"));
                let operation = Operation::Consume {
                    cost: Ap::new(cost),
                    event,
                    session: SessionId::parse("s").unwrap(),
                    tokens: Tokens::default(),
                    model: None,
                    idempotency: kept.as_deref().map(|key| idempotency(&self.user, key, cost)),
                };
                (operation, self.model.consume(now, event, cost, kept.as_deref()))
            }
            Step::Reserve { cost, ttl_seconds, key } => {
                let ttl = Ttl::from_seconds(ttl_seconds.into()).unwrap();
                let expires_at = now + TimeDelta::seconds(ttl_seconds.into());
                let period = self.harness.calendar.period_at(now);
                let hold = Hold { id: fresh_id(), ap: cost, period, expires_at };
                let kept = key.map(|key| format!("r{key}"));
                let idempotency = kept.as_deref().map(|key| idempotency(&self.user, key, cost));
                let operation = Operation::Reserve { cost: Ap::new(cost), ttl, hold: hold.id, idempotency };
                let expected = self.model.reserve(now, hold, kept.as_deref());
                if expected.status == ReplyStatus::Ok && !expected.replayed {
                    self.reservations.push(hold);
                }
                (operation, expected)
            }
            Step::Extend { hold, ttl_seconds } => {
                let Some(reservation) = self.reservation(hold) else { return };
                let ttl = Ttl::from_seconds(ttl_seconds.into()).unwrap();
                let until = now + TimeDelta::seconds(ttl_seconds.into());
                let operation = Operation::Extend { hold: reservation.id, ttl };
                (operation, self.model.extend(now, reservation.id, until))
            }
            Step::Commit { hold, ap, accepted_seconds_ago } => {
                let Some(reservation) = self.reservation(hold) else { return };
                let accepted_at = accepted_seconds_ago.map(|seconds| now - TimeDelta::seconds(seconds.into()));
                let operation = Operation::Commit {
                    reservation: self.signed(reservation),
                    ap: Ap::new(ap),
                    tokens: Tokens::default(),
                    model: None,
                    covered: self.harness.calendar.period_end(reservation.period) <= reservation.expires_at,
                    // The gate has checked the log; here the settlement is never lost.
                    adopt: accepted_at.is_some(),
                    accepted_at,
                    idempotency: None,
                };
                (operation, self.model.commit(now, reservation, ap, accepted_at))
            }
            Step::Release { hold } => {
                let Some(reservation) = self.reservation(hold) else { return };
                let operation = Operation::Release { reservation: self.signed(reservation), adopt: false };
                (operation, self.model.release(now, reservation))
            }
            Step::Peek => (Operation::Peek, self.model.peek(now)),
            Step::SetLevel { level, pending, version_step, own_quota, blocked } => {
                let level = LevelCode::new(level).unwrap();
                let pending = pending.and_then(LevelCode::new);
                let version = self.level_version.saturating_add_signed(version_step.into());
                self.level_version = self.level_version.max(version);
                let user_level = UserLevel {
                    period: self.harness.calendar.period_at(now),
                    level,
                    quota: Ap::new(own_quota.unwrap_or_else(|| self.model.quota_of(level))),
                    own_quota: own_quota.is_some(),
                    blocked,
                    pending,
                    level_version: version,
                };
                (
                    Operation::SetLevel(user_level),
                    self.model.set_level(now, level, pending, version, (own_quota, blocked)),
                )
            }
            Step::Pass { .. } | Step::PassToMonthEnd { .. } => return,
        };
        self.calls.push(operation);
        self.expected.push(expected);
    }

    fn reservation(&self, number: u8) -> Option<Hold> {
        let count = self.reservations.len();
        (count > 0).then(|| self.reservations[usize::from(number) % count])
    }

    fn signed(&self, hold: Hold) -> Reservation {
        Reservation {
            hold: hold.id,
            user: self.user.clone(),
            session: SessionId::parse("s").unwrap(),
            ap: Ap::new(hold.ap),
            period: hold.period,
            expires_at: hold.expires_at,
            generation: 1,
        }
    }

    async fn send(&mut self, seed: Option<Seed>) -> Result<(), TestCaseError> {
        let expected = std::mem::take(&mut self.expected);
        let answers = self.harness.send(&self.user, seed, std::mem::take(&mut self.calls)).await;
        for (answer, expected) in answers.iter().zip(&expected) {
            prop_assert_eq!(&seen(answer), expected);
        }
        Ok(())
    }
}

fn idempotency(user: &UserId, key: &str, what: u32) -> Idempotency {
    let mut request = [0; 32];
    request[..4].copy_from_slice(&what.to_be_bytes());
    let keep = std::time::Duration::from_secs(KEPT_SECONDS.unsigned_abs());
    Idempotency::new(user, IdempotencyKey::parse(key).unwrap(), &request, keep)
}

/// The state of a new user.
pub(super) fn seed(harness: &Harness) -> Seed {
    let (lowest, now) = (harness.levels.lowest(), harness.clock.now());
    Seed {
        level: UserLevel {
            period: harness.calendar.period_at(now),
            level: lowest.code,
            quota: lowest.quota,
            own_quota: false,
            blocked: false,
            pending: None,
            level_version: 0,
        },
        used: Ap::ZERO,
        total_used: 0,
        day: harness.calendar.day_at(now),
        used_today: Ap::ZERO,
    }
}

async fn check(
    harness: &Harness,
    connection: &mut redis::aio::MultiplexedConnection,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let now: DateTime<Utc> = "2026-11-29T23:58:30Z".parse().unwrap();
    harness.set_time(connection, now).await;
    let user = UserId::parse(&fresh_id().to_string()).unwrap();
    let model = Model::new(harness.calendar, harness.levels.clone(), now);
    let seed = seed(harness);
    let mut history = History {
        harness,
        user: user.clone(),
        model,
        now,
        reservations: vec![],
        level_version: 0,
        calls: vec![Operation::Peek],
        expected: vec![],
    };
    let first = history.model.peek(now);
    history.expected.push(first);
    history.send(Some(seed)).await?;

    let mut forced_down = false;
    for step in steps {
        let pass = match *step {
            Step::Pass { seconds } => Some(TimeDelta::seconds(seconds)),
            Step::PassToMonthEnd { seconds_after } => {
                let end = harness.calendar.period_end(harness.calendar.period_at(history.now));
                Some((end + TimeDelta::seconds(seconds_after) - history.now).max(TimeDelta::zero()))
            }
            _ => None,
        };
        if let Some(pass) = pass {
            history.send(None).await?;
            history.now += pass;
            harness.set_time(connection, history.now).await;
        } else {
            history.apply(step);
            forced_down |= matches!(step, Step::SetLevel { .. });
            // Only an operator who lowers a level immediately can put a user above the quota.
            prop_assert!(forced_down || !history.model.is_over_quota());
        }
    }
    history.calls.push(Operation::Peek);
    let last = history.model.peek(history.now);
    history.expected.push(last);
    history.send(None).await?;

    let journal = harness.redis.read_stream(harness.partition(), 1, StreamId::GENESIS, 1_000_000).await.unwrap();
    let events: Vec<Event> = journal
        .iter()
        .flat_map(quota_gate::domain::journal::Entry::events)
        .filter(|event| event.user == user)
        .map(|event| Event { id: event.id, period: event.period, ap: event.ap.get(), overage: event.overage.get() })
        .collect();
    prop_assert_eq!(&events, &history.model.events);

    let stored = harness.redis.record(harness.partition(), &user).await.unwrap();
    prop_assert!(
        stored.is_some_and(|record| record.total_used == events.iter().map(|event| u64::from(event.ap)).sum::<u64>())
    );
    Ok(())
}

fn agrees_with_the_model_in(zone: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(support::redis());
    let (harness, mut connection) = runtime.block_on(async {
        let client = redis::Client::open(server.operator_url()).unwrap();
        (Harness::start(&server.url(), zone).await, client.get_multiplexed_async_connection().await.unwrap())
    });
    let config =
        ProptestConfig { cases: 200, failure_persistence: None, max_shrink_iters: 4_000, ..ProptestConfig::default() };
    let connection = std::cell::RefCell::new(&mut connection);
    let outcome = proptest::test_runner::TestRunner::new(config)
        .run(&steps(), |steps| runtime.block_on(check(&harness, &mut connection.borrow_mut(), &steps)));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn every_history_agrees_with_the_model_in_utc() {
    agrees_with_the_model_in("UTC");
}

#[test]
fn every_history_agrees_with_the_model_in_shanghai() {
    agrees_with_the_model_in("Asia/Shanghai");
}
