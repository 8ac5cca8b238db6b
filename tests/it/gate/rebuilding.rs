//! Random histories of users, over years: a record that is rebuilt from Postgres is the record that Redis has lost,
//! and no user gets more than one allowance per period.
//!
//! The property test of the script shows that records agree with the model. This one shows that Postgres has all of
//! what a record has, through the flusher, the resetter, changes of users, and openings.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use proptest::{prelude::*, test_runner::TestCaseError};
use quota_gate::{
    domain::{
        ap::Ap,
        author::Author,
        calendar::AnchorDay,
        decision::Decision,
        level::{LevelName, LevelTerms},
        level_change::Effective,
        new_grant::{ExternalId, GrantSource, NewGrant, Priority},
        own_quota::{OwnQuota, UserChange},
        quota::Quota,
        window::LevelLimits,
    },
    gate::{ChangeLevel, ChangeUser, Commit, Consume, GateError, Reserve},
    jobs::{level_sync::LevelSync, resetter::Trigger},
};
use uuid::Uuid;

use crate::support::{GateUnderTest, World, consume, reserve, user};

const USERS: [&str; 3] = ["ann", "bob", "5e9d3a52-0c1e-4a5e-9a55-0d6a3d7f1c11"];
/// More than any quota of a level and any own quota of these histories.
const HIGHEST_QUOTA: i64 = 300;

#[derive(Debug, Clone)]
enum Act {
    Consume { ap: u8 },
    Reserve { ap: u8, ttl_seconds: u16 },
    ChangeLevel { level: &'static str, now: bool, anchor_day: Option<u8> },
    ChangeUser(UserChange),
    Give { ap: u8, seconds: Option<u32>, priority: u8 },
}

#[derive(Debug, Clone)]
enum Step {
    Of {
        user: usize,
        act: Act,
    },
    Commit {
        hold: usize,
        ap: u8,
    },
    Release {
        hold: usize,
    },
    Void {
        grant: usize,
    },
    Flush,
    Reset,
    /// An operator applies the levels, with other windows and quotas.
    ApplyLevels {
        number: usize,
    },
    Pass {
        seconds: i64,
    },
    PassToPeriodEnd {
        user: usize,
        seconds_after: i64,
    },
    LoseRedis,
}

fn acts() -> impl Strategy<Value = Act> {
    let level = prop_oneof![Just("free"), Just("windows"), Just("busy"), Just("plus")];
    let anchor_day = proptest::option::weighted(0.4, prop_oneof![1..=31_u8, 28..=31_u8]);
    let quota = proptest::option::weighted(0.7, proptest::option::of(0..200_i64))
        .prop_map(|quota| quota.map(|quota| quota.map(|ap| OwnQuota::new(ap).unwrap())));
    let seconds = proptest::option::of(prop_oneof![Just(60_u32), Just(7_200), Just(40 * 86_400)]);
    prop_oneof![
        12 => prop_oneof![4 => 0..9_u8, 1 => 30..90_u8].prop_map(|ap| Act::Consume { ap }),
        6 => (0..20_u8, prop_oneof![Just(1_u16), Just(60), Just(900)])
            .prop_map(|(ap, ttl_seconds)| Act::Reserve { ap, ttl_seconds }),
        3 => (level, any::<bool>(), anchor_day)
            .prop_map(|(level, now, anchor_day)| Act::ChangeLevel { level, now, anchor_day }),
        1 => (quota, proptest::option::weighted(0.3, proptest::bool::weighted(0.3)))
            .prop_map(|(quota, blocked)| Act::ChangeUser(UserChange { quota, blocked })),
        3 => (1..60_u8, seconds, 0..3_u8)
            .prop_map(|(ap, seconds, priority)| Act::Give { ap, seconds, priority }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seconds = prop_oneof![Just(1_i64), Just(59), Just(601), Just(18_001), Just(86_400), Just(9 * 86_400)];
    let step = prop_oneof![
        24 => (0..USERS.len(), acts()).prop_map(|(user, act)| Step::Of { user, act }),
        4 => (any::<usize>(), 0..30_u8).prop_map(|(hold, ap)| Step::Commit { hold, ap }),
        2 => any::<usize>().prop_map(|hold| Step::Release { hold }),
        1 => any::<usize>().prop_map(|grant| Step::Void { grant }),
        2 => Just(Step::Flush),
        1 => Just(Step::Reset),
        1 => (0..3_usize).prop_map(|number| Step::ApplyLevels { number }),
        6 => seconds.prop_map(|seconds| Step::Pass { seconds }),
        3 => (0..USERS.len(), -1..3_i64)
            .prop_map(|(user, seconds_after)| Step::PassToPeriodEnd { user, seconds_after }),
        2 => Just(Step::LoseRedis),
    ];
    proptest::collection::vec(step, 40..90)
}

struct History<'a> {
    world: &'a World,
    gate: GateUnderTest,
    now: DateTime<Utc>,
    holds: Vec<String>,
    grants: Vec<Uuid>,
}

impl History<'_> {
    async fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Of { user, ref act } => self.act(USERS[user], act).await,
            Step::Commit { hold, ap } => {
                if let Some(hold) = self.take_hold(hold) {
                    let commit = Commit { ap: Some(Ap::new(ap.into())), ..Commit::default() };
                    expect_settled(self.gate.gate.commit(&hold, commit).await);
                }
            }
            Step::Release { hold } => {
                if let Some(hold) = self.take_hold(hold) {
                    expect_settled(self.gate.gate.release(&hold).await);
                }
            }
            Step::Void { grant } => {
                if !self.grants.is_empty() {
                    let grant = self.grants.swap_remove(grant % self.grants.len());
                    self.gate.gate.void_grant(grant, &Author::person("ops", "a test").unwrap()).await.unwrap();
                }
            }
            Step::Flush => self.gate.flusher.flush_all().await.unwrap(),
            Step::Reset => {
                self.gate.resetter.run(Trigger::Schedule).await.unwrap();
            }
            Step::ApplyLevels { number } => {
                // It waits while a day is about to end.
                let (calendar, later) = (self.gate.gate.calendar(), self.now + TimeDelta::minutes(2));
                if calendar.day_at(later) != calendar.day_at(self.now) {
                    self.pass_to(later).await;
                }
                self.gate.gate.apply_levels(&levels(number), |_| {}).await.unwrap();
                LevelSync::new(&self.gate.gate).sync_some(None).await.unwrap();
            }
            Step::Pass { seconds } => self.pass_to(self.now + TimeDelta::seconds(seconds)).await,
            Step::PassToPeriodEnd { user, seconds_after } => {
                let quota = self.quota(USERS[user]).await;
                let end = self.gate.gate.calendar().period_end(quota.period, quota.anchor_day);
                self.pass_to((end + TimeDelta::seconds(seconds_after)).max(self.now)).await;
            }
            Step::LoseRedis => self.lose_redis().await?,
        }
        Ok(())
    }

    async fn act(&mut self, who: &str, act: &Act) {
        match *act {
            Act::Consume { ap } => {
                match self.gate.gate.consume(Consume { ap: Ap::new(ap.into()), ..consume(who, 1) }).await {
                    Ok(_) | Err(GateError::Blocked) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Act::Reserve { ap, ttl_seconds } => {
                let request = Reserve { ap: Ap::new(ap.into()), ..reserve(who, 1, ttl_seconds.into()) };
                match self.gate.gate.reserve(request).await {
                    Ok(Decision::Allowed(reserved)) => {
                        self.holds.push(self.gate.gate.reservation_id(&reserved.reservation));
                    }
                    Ok(_) | Err(GateError::Blocked) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Act::ChangeLevel { level, now, anchor_day } => {
                let request = ChangeLevel {
                    user: user(who),
                    level: LevelName::parse(level).unwrap(),
                    effective: if now { Effective::Now } else { Effective::Fair },
                    anchor_day: anchor_day.map(|day| AnchorDay::new(day).unwrap()),
                    if_version: None,
                    author: Author::person("ops", "a test").unwrap(),
                };
                self.gate.gate.change_level(request).await.unwrap();
            }
            Act::ChangeUser(change) => {
                let author = Author::person("ops", "a test").unwrap();
                let request = ChangeUser { user: user(who), change, if_version: None, author };
                self.gate.gate.change_user(request).await.unwrap();
            }
            Act::Give { ap, seconds, priority } => {
                let grant = NewGrant {
                    meter: quota_gate::domain::meter::MeterCode::CHAT,
                    user: user(who),
                    ap: NewGrant::ap(ap.into()).unwrap(),
                    expires_at: seconds.map(|seconds| self.now + TimeDelta::seconds(seconds.into())),
                    priority: Priority::new(priority.into()).unwrap(),
                    source: GrantSource::parse("gift").unwrap(),
                    external_id: ExternalId::parse(&Uuid::new_v4().to_string()).unwrap(),
                };
                let author = Author::person("ops", "a test").unwrap();
                match self.gate.gate.give_grant(&grant, &author).await {
                    Ok(given) => self.grants.push(given.grant.id),
                    Err(GateError::TooManyGrants(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn take_hold(&mut self, hold: usize) -> Option<String> {
        if self.holds.is_empty() { None } else { Some(self.holds.swap_remove(hold % self.holds.len())) }
    }

    async fn pass_to(&mut self, now: DateTime<Utc>) {
        self.now = now;
        self.world.set_time(&now.to_rfc3339_opts(SecondsFormat::Millis, true)).await;
    }

    async fn quota(&self, who: &str) -> Quota {
        self.gate.gate.quota_and_holds(&user(who)).await.unwrap().0
    }

    /// Gives back all holds and flushes, then deletes all of Redis, and compares what each user has before and after.
    ///
    /// All other steps are at full seconds, and a record's time can be some milliseconds ahead of the clock. At half a
    /// second, no window and no grant ends between the two comparisons.
    async fn lose_redis(&mut self) -> Result<(), TestCaseError> {
        self.pass_to(self.now + TimeDelta::milliseconds(500)).await;
        while let Some(hold) = self.take_hold(0) {
            expect_settled(self.gate.gate.release(&hold).await);
        }
        self.gate.flush_and_verify().await;
        let mut before = vec![];
        for who in USERS {
            before.push(kept(self.quota(who).await));
        }
        let _: () = redis::cmd("FLUSHALL").query_async(&mut self.world.redis_connection().await).await.unwrap();
        self.pass_to(self.now).await;
        for (who, before) in USERS.into_iter().zip(before) {
            prop_assert_eq!(kept(self.quota(who).await), before);
        }
        self.pass_to(self.now + TimeDelta::milliseconds(500)).await;
        Ok(())
    }
}

/// A hold may have expired, or have been settled before a loss of Redis.
fn expect_settled<T>(answer: Result<T, GateError>) {
    match answer {
        Ok(_) | Err(GateError::ReservationExpired(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// What must be the same after a loss, for a user without holds: everything but the time of the last change, and
/// windows that nothing was counted in.
fn kept(mut quota: Quota) -> Quota {
    (quota.version, quota.as_of) = (0, DateTime::default());
    for window in &mut quota.limits.windows {
        window.start = window.start.filter(|_| window.used > 0);
    }
    quota.limits.grants.live.sort_by_key(|grant| grant.number);
    quota
}

/// Levels as an operator changes them: windows come, go and return, and quotas of both kinds change.
fn levels(number: usize) -> Vec<(LevelName, LevelTerms)> {
    let (windows, busy) = [
        ("10m ap 15, 1d ap 60", "1m requests 5, 5h ap 12"),
        ("1d ap 60", "1m requests 5, 5h ap 40, 7d ap 50"),
        ("10m ap 9, 1d requests 8", ""),
    ][number];
    let level = |name, quota, windows, concurrency| {
        let limits = LevelLimits::parse(windows, concurrency).unwrap();
        (LevelName::parse(name).unwrap(), LevelTerms { quota: Ap::new(quota), limits })
    };
    let free = [40, 25, 70][number];
    vec![
        level("free", free, "", None),
        level("windows", 200, windows, Some(3)),
        level("busy", 90, busy, None),
        level("plus", 300, "", None),
    ]
}

async fn check(zone: &'static str, steps: &[Step]) -> Result<(), TestCaseError> {
    let begins: DateTime<Utc> = "2027-11-29T23:58:30Z".parse().unwrap();
    let world = World::at("2027-11-29T23:58:30Z", zone).await;
    let gate = world.gate_with(|tuning| tuning.levels = levels(0)).await;
    let mut history = History { world: &world, gate, now: begins, holds: vec![], grants: vec![] };
    for step in steps {
        history.apply(step).await?;
    }
    history.lose_redis().await?;

    // One allowance per period, and periods of at least 28 days.
    let most = "select max(ap) from (select sum(coalesce(plan_ap, ap_used))::bigint as ap from chat_usage_logs
                group by user_uuid, period) as periods";
    prop_assert!(world.number(most).await <= HIGHEST_QUOTA);
    let shortest = "select coalesce(min(days), 28)::bigint from (
                        select period_begins(period) - lag(period_begins(period))
                               over (partition by user_uuid order by period_begins(period)) as days
                        from (select distinct user_uuid, period from chat_usage_logs) as periods) as gaps";
    prop_assert!(world.number(shortest).await >= 28);
    Ok(())
}

fn rebuilt_in(zone: &'static str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config =
        ProptestConfig { cases: 8, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() };
    let outcome =
        proptest::test_runner::TestRunner::new(config).run(&steps(), |steps| runtime.block_on(check(zone, &steps)));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn rebuilt_records_are_those_that_were_lost_in_utc() {
    rebuilt_in("UTC");
}

#[test]
fn rebuilt_records_are_those_that_were_lost_in_shanghai() {
    rebuilt_in("Asia/Shanghai");
}

#[test]
fn rebuilt_records_are_those_that_were_lost_in_new_york() {
    rebuilt_in("America/New_York");
}
