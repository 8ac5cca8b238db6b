//! Random histories of operations give the same answers, numbers and journal as the model, across days and periods,
//! with one or many operations per call. A failure shrinks to the shortest history that shows it.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{join_all, try_join_all};
use proptest::{prelude::*, test_runner::TestCaseError};
use quota_gate::{
    domain::{
        ap::Ap,
        author::Author,
        calendar::{AnchorDay, Calendar, Period},
        clock::Clock,
        grant::{Grant, GrantNumber, Grants},
        hold::{Reservation, Ttl},
        idempotency::IdempotencyKey,
        journal::StreamId,
        level::{Level, LevelCode, LevelName, Levels},
        meter::{Meter, MeterCode, MeterName},
        partition::{Partition, Partitions},
        token_kinds::TokenKinds,
        transfer::Receipt,
        usage::{Tokens, UsageKind},
        user_id::{SessionId, UserId},
        window::{LevelLimits, Window, WindowKey, WindowState, WindowUnit},
    },
    store::redis::{
        Answer, Batcher, BatcherOptions, Generations, Idempotency, Operation, Redis, RedisOptions, ReplyStatus,
        Request, Script, Seed, UserLevel,
    },
};
use uuid::Uuid;

use super::model::{Event, Expected, Hold, KEPT_SECONDS, Model, Numbers};
use super::plans::Limits;
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
        anchor_day: u8,
        /// Whether a period begins today, because a payment was made for it.
        begins: bool,
        own_quota: Option<u32>,
        blocked: bool,
    },
    /// Postgres gets a grant. Redis hears of it with the next `Bring`, or seed.
    Grant {
        ap: u32,
        seconds: Option<u32>,
        priority: u8,
    },
    Void {
        grant: u8,
    },
    /// Transfers granted AP to another user.
    Transfer {
        ap: u32,
        key: u8,
    },
    /// Sends the list of grants: the newest, or again an older one.
    Bring {
        older_by: u8,
    },
    /// Redis loses the user: the record, or only its generation. Then a seed comes from a Postgres that may lack the
    /// last charges, if Redis still has them.
    Lose {
        record: bool,
        lacks: u8,
    },
    /// Sends the operations so far in one call, then moves the clock.
    Pass {
        seconds: i64,
    },
    /// The same, to just before or after the end of the user's period.
    PassToPeriodEnd {
        seconds_after: i64,
    },
}

/// Levels of plain users come first.
const PLAIN_LEVELS: u8 = 3;
const LEVELS: u8 = 6;

fn set_level_step(levels: u8) -> impl Strategy<Value = Step> {
    let anchor_day = prop_oneof![2 => Just(1_u8), 1 => 1..=31_u8, 1 => 28..=31_u8];
    let begins = proptest::bool::weighted(0.2);
    let own_quota = proptest::option::weighted(0.3, 0..200_u32);
    let blocked = proptest::bool::weighted(0.2);
    (1..=levels, proptest::option::of(1..=levels), -1..3_i8, anchor_day, begins, own_quota, blocked).prop_map(
        |(level, pending, version_step, anchor_day, begins, own_quota, blocked)| Step::SetLevel {
            level,
            pending,
            version_step,
            anchor_day,
            begins,
            own_quota,
            blocked,
        },
    )
}

fn steps(levels: u8) -> impl Strategy<Value = Vec<Step>> {
    let cost = prop_oneof![8 => 0..8_u32, 2 => 20..60_u32, 1 => Just(1_000_000)];
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
        2 => set_level_step(levels),
        4 => prop_oneof![Just(0), Just(1), Just(59), Just(61), Just(599), Just(601), Just(86_400), Just(40 * 86_400), Just(300 * 86_400)]
            .prop_map(|seconds| Step::Pass { seconds }),
        2 => grant_step(),
        3 => prop_oneof![6 => Just(0), 1 => 0..4_u8].prop_map(|older_by| Step::Bring { older_by }),
        1 => (0..4_u8).prop_map(|grant| Step::Void { grant }),
        2 => (prop_oneof![3 => 1..20_u32, 1 => 20..60_u32], 0..4_u8).prop_map(|(ap, key)| Step::Transfer { ap, key }),
        1 => (proptest::bool::ANY, 0..4_u8).prop_map(|(record, lacks)| Step::Lose { record, lacks }),
        2 => (-2..3_i64).prop_map(|seconds_after| Step::PassToPeriodEnd { seconds_after }),
    ];
    let of_plans =
        |step: &Step| matches!(step, Step::Grant { .. } | Step::Void { .. } | Step::Bring { .. } | Step::Lose { .. });
    let step = step.prop_map(move |step| if levels == PLAIN_LEVELS && of_plans(&step) { Step::Peek } else { step });
    proptest::collection::vec(step, 1..60)
}

fn grant_step() -> impl Strategy<Value = Step> {
    let seconds = proptest::option::of(prop_oneof![Just(1_u32), Just(30), Just(600), Just(90_000)]);
    (1..40_u32, seconds, 0..3_u8).prop_map(|(ap, seconds, priority)| Step::Grant { ap, seconds, priority })
}

/// The real script, and everything needed to call it.
pub(super) struct Harness {
    pub(super) redis: Redis,
    batcher: Batcher,
    pub(super) clock: Clock,
    calendar: Calendar,
    levels: Levels,
    partitions: Partitions,
}

fn levels() -> Levels {
    let window = |every, unit, limit| Window { key: WindowKey::parse(every, unit).unwrap(), limit };
    let (ap, requests) = (WindowUnit::Ap, WindowUnit::Requests);
    let busy = vec![window("1m", requests, 5), window("10m", ap, 12), window("10m", requests, 8)];
    let level = |code, name, quota, windows, concurrency| Level {
        code: LevelCode::new(code).unwrap(),
        name: LevelName::parse(name).unwrap(),
        quota: Ap::new(quota),
        limits: LevelLimits::new(windows, concurrency).unwrap(),
        retired: false,
    };
    let levels = vec![
        level(1, "free", 40, vec![], None),
        level(2, "basic", 90, vec![], None),
        level(3, "plus", 300, vec![], None),
        level(4, "windows", 200, vec![window("10m", ap, 15), window("1d", ap, 60)], Some(3)),
        level(5, "busy", 60, busy, None),
        level(6, "concurrent", 50, vec![], Some(2)),
    ];
    Levels::new(1, levels).unwrap()
}

/// A meter beside the chat.
const METER: MeterCode = MeterCode::new(7);

/// The levels as they are on a meter: on that beside the chat, each has the windows of another, and a quota between
/// those of the chat.
fn levels_on(meter: MeterCode) -> Levels {
    let of_chat = levels();
    if meter.is_chat() {
        return of_chat;
    }
    let other = |code: LevelCode| of_chat.coded(LevelCode::new(LEVELS + 1 - code.get()).unwrap()).unwrap();
    let on_meter = |level: &Level| {
        let quota = Ap::new(level.quota.get() + 7);
        Level { quota, limits: other(level.code).limits.clone(), ..level.clone() }
    };
    Levels::new(1, of_chat.all().iter().map(on_meter).collect()).unwrap()
}

fn levels_with_meter() -> Levels {
    let terms = levels_on(METER).all().iter().map(|level| (level.code, level.terms())).collect();
    levels().with_meters(vec![Meter { code: METER, name: MeterName::parse("image").unwrap(), levels: terms }])
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
        let levels = levels_with_meter();
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

    pub(super) fn partition(&self) -> Partition {
        self.partitions.all().next().unwrap()
    }

    pub(super) async fn set_time(&self, connection: &mut redis::aio::MultiplexedConnection, now: DateTime<Utc>) {
        let _: () = redis::cmd("SET").arg(CLOCK_KEY).arg(now.timestamp_millis()).query_async(connection).await.unwrap();
        self.clock.set(now);
    }

    /// Sends the operations in one call, in this order.
    pub(super) async fn send(&self, user: &UserId, seed: Option<Seed>, operations: Vec<Operation>) -> Vec<Answer> {
        self.send_to((user, MeterCode::CHAT), seed, operations).await
    }

    /// The same, on a meter.
    async fn send_to(
        &self,
        (user, meter): (&UserId, MeterCode),
        seed: Option<Seed>,
        operations: Vec<Operation>,
    ) -> Vec<Answer> {
        let requests = operations.into_iter().map(|operation| {
            let request = Request { user: user.clone(), meter, operation, seed: seed.clone(), generation: None };
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
        // A repeated reservation has those of the first answer.
        parts: if answer.replayed { (0, None) } else { (answer.granted.get(), answer.made_at) },
        limits: limits_seen(answer),
        numbers: Numbers {
            period: record.period,
            anchor_day: record.anchor_day,
            level: record.level,
            quota: record.quota.get(),
            used: record.used.get(),
            held: record.held.get(),
            total_used: record.total_used,
            used_today: record.used_today.get(),
        },
    }
}

fn limits_seen(answer: &Answer) -> Limits {
    let mut limits = answer.limits.clone();
    limits.grants.live.sort_by_key(|grant| grant.number);
    Limits {
        windows: limits.windows,
        concurrency: limits.concurrency,
        live_holds: limits.live_holds.into(),
        grants: limits.grants,
        held_granted: limits.held_granted.get(),
        granted_free: limits.granted_free.get(),
    }
}

pub(super) fn fresh_id() -> Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Uuid::from_u128(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

/// One user's history on a meter under test.
struct History<'a> {
    harness: &'a Harness,
    user: UserId,
    meter: MeterCode,
    model: Model,
    now: DateTime<Utc>,
    /// The reservations that a client would store, numbered by position.
    reservations: Vec<Hold>,
    /// Grants in Postgres with what they granted, whether they are voided, and their newest version.
    grants: Vec<(Grant, bool)>,
    grants_version: u64,
    lists: Vec<Grants>,
    level_version: u32,
    /// The period that the last answer named, and those that a payment began.
    period: Option<Period>,
    paid_periods: BTreeSet<Period>,
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
                    tokens: tokens_of(cost),
                    model: None,
                    idempotency: kept.as_deref().map(|key| idempotency((&self.user, self.meter), key, cost)),
                };
                (operation, self.model.consume(now, event, cost, kept.as_deref()))
            }
            Step::Reserve { cost, ttl_seconds, key } => {
                let ttl = Ttl::from_seconds(ttl_seconds.into()).unwrap();
                let id = fresh_id();
                let kept = key.map(|key| format!("r{key}"));
                let idempotency = kept.as_deref().map(|key| idempotency((&self.user, self.meter), key, cost));
                let operation = Operation::Reserve { cost: Ap::new(cost), ttl, hold: id, idempotency };
                let reserve = (id, cost, TimeDelta::seconds(ttl_seconds.into()));
                let expected = self.model.reserve(now, reserve, kept.as_deref());
                if expected.status == ReplyStatus::Ok && !expected.replayed {
                    let hold = *self.model.holds.last().unwrap();
                    let made_ms = expected.parts.1.map_or(0, |at| at.timestamp_millis().unsigned_abs());
                    self.reservations.push(Hold { made_ms, ..hold });
                }
                (operation, expected)
            }
            Step::Extend { hold, ttl_seconds } => {
                let Some(reservation) = self.reservation(hold) else { return };
                let ttl = Ttl::from_seconds(ttl_seconds.into()).unwrap();
                let operation = Operation::Extend { hold: reservation.id, ttl };
                let ttl = TimeDelta::seconds(ttl_seconds.into());
                (operation, self.model.extend_hold(now, reservation.id, ttl))
            }
            Step::Commit { hold, ap, accepted_seconds_ago } => {
                let Some(reservation) = self.reservation(hold) else { return };
                let accepted_at = accepted_seconds_ago.map(|seconds| now - TimeDelta::seconds(seconds.into()));
                let operation = Operation::Commit {
                    reservation: self.signed(reservation),
                    ap: Ap::new(ap),
                    tokens: tokens_of(ap),
                    model: None,
                    expiry_day: self.harness.calendar.day_at(reservation.expires_at),
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
            Step::SetLevel { .. } => self.set_level(step),
            Step::Grant { ap, seconds, priority } => {
                self.grants_version = self.next_version();
                let number = GrantNumber::new(self.grants_version).unwrap();
                let expires_at = seconds.map(|seconds| now + TimeDelta::seconds(seconds.into()));
                self.grants.push((Grant { number, left: Ap::new(ap), expires_at, priority }, false));
                return;
            }
            Step::Void { grant } => {
                let next = self.next_version();
                let count = self.grants.len().max(1);
                let Some((_, is_void)) = self.grants.get_mut(usize::from(grant) % count) else { return };
                (*is_void, self.grants_version) = (true, next);
                return;
            }
            Step::Transfer { ap, key } => {
                let (event, key) = (fresh_id(), format!("t{key}"));
                let receiver = UserId::parse("receiver").unwrap();
                let receipt = Receipt::new(&self.user, receiver, Author::program("shop", None).unwrap()).unwrap();
                let idempotency = idempotency((&self.user, self.meter), &key, ap);
                let operation = Operation::Transfer { ap: Ap::new(ap), event, receipt: Box::new(receipt), idempotency };
                (operation, self.model.transfer(now, event, ap, &key))
            }
            Step::Bring { older_by } => {
                let newest = self.list(0);
                self.lists.push(newest);
                let brought = self.lists[self.lists.len().saturating_sub(1 + usize::from(older_by))].clone();
                (Operation::BringGrants(brought.clone()), self.model.bring_grants(now, &brought))
            }
            Step::Lose { .. } | Step::Pass { .. } | Step::PassToPeriodEnd { .. } => return,
        };
        self.calls.push(operation);
        self.expected.push(expected);
    }

    fn set_level(&mut self, step: &Step) -> (Operation, Expected) {
        let Step::SetLevel { level, pending, version_step, anchor_day, begins, own_quota, blocked } = *step else {
            unreachable!("the step sets a level")
        };
        // A quota of the user's own is one of the chat.
        let own_quota = own_quota.filter(|_| self.meter.is_chat());
        let now = self.now;
        let level = LevelCode::new(level).unwrap();
        let pending = pending.and_then(LevelCode::new);
        let version = self.level_version.saturating_add_signed(version_step.into());
        self.level_version = self.level_version.max(version);
        let anchor_day = AnchorDay::new(anchor_day).unwrap();
        let today = Period::beginning_on(self.harness.calendar.day_at(now));
        let (current, _) = self.model.period_at(now);
        let period = if begins { today } else { current };
        if version > self.model.level_version && period > current {
            self.paid_periods.insert(period);
        }
        let user_level = UserLevel {
            period,
            anchor_day,
            level,
            quota: Ap::new(own_quota.unwrap_or_else(|| self.model.quota_of(level))),
            own_quota: own_quota.is_some(),
            blocked,
            pending,
            level_version: version,
        };
        (
            Operation::SetLevel(user_level),
            self.model.set_level(now, level, pending, version, (period, anchor_day), (own_quota, blocked)),
        )
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
            granted: Ap::new(hold.granted),
            made_at: (hold.made_ms > 0).then(|| super::plans::at(hold.made_ms)),
            meter: self.meter,
        }
    }

    fn next_version(&self) -> u64 {
        (self.grants_version + 1).max(self.now.timestamp_millis().unsigned_abs())
    }

    /// What Postgres has of the grants without the last charges.
    fn list(&self, lacks: usize) -> Grants {
        let events = &self.model.events[..self.model.events.len().saturating_sub(lacks)];
        let paid = |number| {
            let parts = events.iter().flat_map(|event| &event.grants).filter(move |part| part.number == number);
            parts.fold(Ap::ZERO, |sum, part| sum.saturating_add(part.ap))
        };
        let listed = self.grants.iter().filter(|(_, is_void)| !is_void);
        let live = listed.filter(|(grant, _)| grant.expires_at.is_none_or(|expiry| expiry > self.now));
        let left = live.map(|(grant, _)| Grant { left: grant.left.saturating_sub(paid(grant.number)), ..*grant });
        Grants { version: self.grants_version, live: left.filter(|grant| grant.left > Ap::ZERO).collect() }
    }

    /// The newest window of each key, as the log without the last charges has it.
    fn windows(&self, lacks: usize) -> Vec<WindowState> {
        let events = &self.model.events[..self.model.events.len().saturating_sub(lacks)];
        let mut newest: Vec<WindowState> = vec![];
        for count in events.iter().flat_map(|event| &event.windows) {
            let (key, start) = (count.key, count.start);
            match newest.iter_mut().find(|window| window.key == key) {
                None => newest.push(WindowState { key, start, used: count.counted }),
                Some(window) if window.start == start => window.used += count.counted,
                Some(window) if window.start < start => (window.start, window.used) = (start, count.counted),
                Some(_) => {}
            }
        }
        newest
    }

    /// Makes the record one of an older generation, or deletes it, and seeds it again.
    async fn lose(
        &mut self,
        connection: &mut redis::aio::MultiplexedConnection,
        (record, lacks): (bool, u8),
    ) -> Result<(), TestCaseError> {
        self.send(None).await?;
        let uuid = self.user.as_uuid().unwrap();
        let key = if self.meter.is_chat() {
            [b"qg:{00}:b:".as_slice(), uuid.as_bytes()].concat()
        } else {
            [b"qg:{00}:m:".as_slice(), &[self.meter.get()], uuid.as_bytes()].concat()
        };
        let mut command = redis::cmd(if record { "DEL" } else { "SETRANGE" });
        command.arg(key);
        if !record {
            command.arg(1).arg(&[0_u8; 4]);
        }
        let _: i64 = command.query_async(connection).await.unwrap();
        self.model.peek(self.now);
        let lacks = if record { 0 } else { lacks.into() };
        let (windows, grants) = (self.windows(lacks), self.list(lacks));
        self.model.seeded(self.now, &windows, &grants, !record);
        let seed = self.model.seed(self.harness.calendar.day_at(self.now), lacks == 0, windows, grants);
        let expected = self.model.peek(self.now);
        self.calls.push(Operation::Peek);
        self.expected.push(expected);
        self.send(Some(seed)).await
    }

    async fn send(&mut self, seed: Option<Seed>) -> Result<(), TestCaseError> {
        let expected = std::mem::take(&mut self.expected);
        let account = (&self.user, self.meter);
        let answers = self.harness.send_to(account, seed, std::mem::take(&mut self.calls)).await;
        for (answer, expected) in answers.iter().zip(&expected) {
            prop_assert_eq!(&seen(answer), expected);
            // One allowance in 28 days, except for payments.
            let period = answer.record.period;
            if let Some(before) = self.period.filter(|before| *before != period) {
                let days = (period.first_day() - before.first_day()).num_days();
                prop_assert!(days >= 28 || (days > 0 && self.paid_periods.contains(&period)), "{before} {period}");
            }
            self.period = Some(period);
        }
        Ok(())
    }
}

fn idempotency(account: (&UserId, MeterCode), key: &str, what: u32) -> Idempotency {
    let mut request = [0; 32];
    request[..4].copy_from_slice(&what.to_be_bytes());
    let keep = std::time::Duration::from_secs(KEPT_SECONDS.unsigned_abs());
    Idempotency::new(account, IdempotencyKey::parse(key).unwrap(), &request, keep)
}

/// Tokens of a message of this cost; their kinds are known for every third cost.
fn tokens_of(ap: u32) -> Tokens {
    let kinds = TokenKinds::new(ap, ap / 2, 1).unwrap();
    let plain = Tokens::new(ap.into()).unwrap();
    if ap.is_multiple_of(3) { Tokens::of_kinds(kinds) } else { plain }
}

/// The state of a new user.
pub(super) fn seed(harness: &Harness) -> Seed {
    let (lowest, now) = (harness.levels.lowest(), harness.clock.now());
    Seed {
        level: UserLevel {
            period: harness.calendar.month_at(now),
            anchor_day: AnchorDay::FIRST,
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
        windows: vec![],
        grants: Grants::default(),
    }
}

async fn check(
    harness: &Harness,
    connection: &mut redis::aio::MultiplexedConnection,
    first_level: u8,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    check_all(harness, connection, &[(MeterCode::CHAT, first_level, steps)]).await
}

impl<'a> History<'a> {
    async fn begin(
        harness: &'a Harness,
        (user, meter): (&UserId, MeterCode),
        first_level: u8,
    ) -> Result<Self, TestCaseError> {
        let now = harness.clock.now();
        let model = Model::new(harness.calendar, levels_on(meter), now, LevelCode::new(first_level).unwrap());
        let seed = model.seed(harness.calendar.day_at(now), true, vec![], Grants::default());
        let mut history = Self {
            harness,
            user: user.clone(),
            meter,
            model,
            now,
            reservations: vec![],
            grants: vec![],
            grants_version: 0,
            lists: vec![],
            level_version: 0,
            period: None,
            paid_periods: BTreeSet::new(),
            calls: vec![],
            expected: vec![],
        };
        history.peek();
        history.send(Some(seed)).await?;
        Ok(history)
    }

    fn peek(&mut self) {
        let expected = self.model.peek(self.now);
        self.calls.push(Operation::Peek);
        self.expected.push(expected);
    }

    /// How long a step waits.
    fn pass(&self, step: &Step) -> Option<TimeDelta> {
        match *step {
            Step::Pass { seconds } => Some(TimeDelta::seconds(seconds)),
            Step::PassToPeriodEnd { seconds_after } => {
                let (_, end) = self.model.period_at(self.now);
                Some((end + TimeDelta::seconds(seconds_after) - self.now).max(TimeDelta::zero()))
            }
            _ => None,
        }
    }
}

/// Checks histories of one user on several meters, step by step in turn. Operations of all go into the same calls.
async fn check_all(
    harness: &Harness,
    connection: &mut redis::aio::MultiplexedConnection,
    plans: &[(MeterCode, u8, &[Step])],
) -> Result<(), TestCaseError> {
    let now: DateTime<Utc> = "2026-11-29T23:58:30Z".parse().unwrap();
    harness.set_time(connection, now).await;
    let user = UserId::parse(&fresh_id().to_string()).unwrap();
    let mut histories = Vec::new();
    for (meter, first_level, _) in plans {
        histories.push(History::begin(harness, (&user, *meter), *first_level).await?);
    }

    let mut forced_down = vec![false; plans.len()];
    let longest = plans.iter().map(|(.., steps)| steps.len()).max().unwrap_or_default();
    for (place, number) in (0..longest).flat_map(|place| (0..plans.len()).map(move |number| (place, number))) {
        let Some(step) = plans[number].2.get(place) else { continue };
        if let Step::Lose { record, lacks } = *step {
            histories[number].lose(connection, (record, lacks)).await?;
        } else if let Some(pass) = histories[number].pass(step) {
            send_all(&mut histories).await?;
            for history in &mut histories {
                history.now += pass;
            }
            harness.set_time(connection, histories[number].now).await;
        } else {
            histories[number].apply(step);
            forced_down[number] |= matches!(step, Step::SetLevel { .. });
            // Only an operator who lowers a level immediately can put a user above the quota.
            prop_assert!(forced_down[number] || !histories[number].model.is_over_quota());
        }
    }
    histories.iter_mut().for_each(History::peek);
    send_all(&mut histories).await?;

    let journal = harness.redis.read_stream(harness.partition(), 1, StreamId::GENESIS, 1_000_000).await.unwrap();
    for history in &histories {
        let events: Vec<Event> = journal
            .iter()
            .flat_map(quota_gate::domain::journal::Entry::events)
            .filter(|event| event.user == user && event.meter == history.meter)
            .inspect(|event| match event.receipt {
                Some(_) => assert_eq!((event.kind, event.tokens), (UsageKind::Transfer, Tokens::ZERO)),
                None => assert_eq!(event.tokens, tokens_of(event.ap.get() + event.overage.get())),
            })
            .map(|event| Event {
                id: event.id,
                period: event.period,
                ap: event.ap.get(),
                overage: event.overage.get(),
                begun_at: event.begun_at,
                windows: event.windows.clone(),
                grants: event.grants.clone(),
                terms: event.receipt.as_ref().map(|receipt| receipt.terms.clone()).unwrap_or_default(),
            })
            .collect();
        prop_assert_eq!(&events, &history.model.events);

        let stored = harness.redis.record_of(harness.partition(), &user, history.meter).await.unwrap();
        let charged = events.iter().map(|event| u64::from(event.ap)).sum::<u64>();
        prop_assert!(stored.is_some_and(|record| record.total_used == charged));
    }
    Ok(())
}

async fn send_all(histories: &mut [History<'_>]) -> Result<(), TestCaseError> {
    try_join_all(histories.iter_mut().map(|history| history.send(None))).await.map(|_| ())
}

fn agrees_with_the_model_in(zone: &'static str, levels: u8) {
    let plan = move || (1..=levels, steps(levels));
    run(zone, plan(), |(level, steps)| vec![(MeterCode::CHAT, level, steps)]);
}

/// Runs random plans: for each meter the first level, and the steps.
fn run<S: Strategy>(zone: &'static str, strategy: S, plans: impl Fn(S::Value) -> Vec<(MeterCode, u8, Vec<Step>)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(support::redis());
    let (harness, mut connection) = runtime.block_on(async {
        let client = redis::Client::open(server.operator_url()).unwrap();
        (Harness::start(&server.url(), zone).await, client.get_multiplexed_async_connection().await.unwrap())
    });
    let config =
        ProptestConfig { cases: 200, failure_persistence: None, max_shrink_iters: 4_000, ..ProptestConfig::default() };
    let connection = std::cell::RefCell::new(&mut connection);
    let outcome = proptest::test_runner::TestRunner::new(config).run(&strategy, |value| {
        let plans = plans(value);
        let plans: Vec<_> = plans.iter().map(|(meter, level, steps)| (*meter, *level, steps.as_slice())).collect();
        runtime.block_on(check_all(&harness, &mut connection.borrow_mut(), &plans))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn a_meter_and_the_chat_of_a_user_agree_with_a_model_each_whatever_the_other_does() {
    let plan = || (1..=LEVELS, steps(LEVELS));
    // In a call, the operations of the first precede those of the second.
    let both = (plan(), plan(), proptest::bool::ANY);
    run("America/New_York", both, |((level, of_chat), (other_level, of_meter), meter_first)| {
        let mut plans = vec![(MeterCode::CHAT, level, of_chat), (METER, other_level, of_meter)];
        if meter_first {
            plans.reverse();
        }
        plans
    });
}

/// Checks a history that is too rare to be found by chance.
async fn agrees_on(steps: &[Step]) {
    let server = support::redis().await;
    let harness = Harness::start(&server.url(), "UTC").await;
    let client = redis::Client::open(server.operator_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    check(&harness, &mut connection, 1, steps).await.unwrap();
}

#[tokio::test]
async fn a_late_commit_of_an_ended_period_takes_only_what_is_beyond_its_hold_from_grants() {
    agrees_on(&[
        Step::Pass { seconds: 86_400 },
        Step::Grant { ap: 30, seconds: None, priority: 0 },
        Step::Bring { older_by: 0 },
        Step::Reserve { cost: 5, ttl_seconds: 60, key: None },
        Step::PassToPeriodEnd { seconds_after: 1 },
        Step::Commit { hold: 0, ap: 8, accepted_seconds_ago: None },
    ])
    .await;
}

#[tokio::test]
async fn a_late_commit_leaves_an_expired_grant_to_the_hold_that_it_backs() {
    agrees_on(&[
        Step::Consume { cost: 40, key: None },
        Step::Grant { ap: 10, seconds: Some(30), priority: 0 },
        Step::Grant { ap: 20, seconds: None, priority: 0 },
        Step::Bring { older_by: 0 },
        Step::Reserve { cost: 5, ttl_seconds: 1, key: None },
        Step::Reserve { cost: 8, ttl_seconds: 900, key: None },
        Step::Pass { seconds: 31 },
        Step::Commit { hold: 0, ap: 5, accepted_seconds_ago: None },
        Step::Commit { hold: 1, ap: 8, accepted_seconds_ago: None },
    ])
    .await;
}

#[test]
fn every_history_agrees_with_the_model_in_utc() {
    agrees_with_the_model_in("UTC", PLAIN_LEVELS);
}

#[test]
fn every_history_agrees_with_the_model_in_shanghai() {
    agrees_with_the_model_in("Asia/Shanghai", PLAIN_LEVELS);
}

#[test]
fn every_history_with_windows_and_grants_agrees_with_the_model_in_utc() {
    agrees_with_the_model_in("UTC", LEVELS);
}

#[test]
fn every_history_with_windows_and_grants_agrees_with_the_model_in_new_york() {
    agrees_with_the_model_in("America/New_York", LEVELS);
}

#[test]
fn every_history_agrees_with_the_model_in_new_york() {
    agrees_with_the_model_in("America/New_York", PLAIN_LEVELS);
}
