//! Logs of real gates, replayed, and compared with gates that really run with the proposal.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use quota_gate::{
    audit::price_replay::{PriceReplay, PriceReplayError, ReplayedDays},
    domain::{
        ap::Ap,
        author::Author,
        calendar::{AnchorDay, Calendar},
        decision::Decision,
        level::{LevelName, LevelTerms},
        level_change::Effective,
        meter::MeterCode,
        model_costs::{ModelPrice, Unlisted},
        model_name::ModelName,
        new_grant::{ExternalId, GrantSource, NewGrant, Priority},
        price_replay::{Prices, Proposal, Report},
        window::LevelLimits,
    },
    gate::{ChangeLevel, Commit, Consume},
};

use crate::support::{GateUnderTest, World, consume, execute, levels, reserve, user};

const ZONE: &str = "Asia/Shanghai";
const PRICES: [(&str, u32); 3] = [("default", 1), ("small", 2), ("large", 5)];

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn replayer(gate: &GateUnderTest) -> PriceReplay {
    PriceReplay { postgres: gate.postgres.clone(), calendar: Calendar::new(ZONE.parse().unwrap()) }
}

async fn replay(gate: &GateUnderTest, proposed: &[(&str, u32)], prices: Option<Prices>) -> Report {
    let present = gate.postgres.all_levels().await.unwrap();
    let proposal = Proposal::new(&present, levels(proposed), prices);
    let days = ReplayedDays::new(day("2026-01-01"), day("2026-12-31"), 400).unwrap();
    replayer(gate).run(days, proposal).await.unwrap()
}

/// Messages of forty days around the end of a month, in order of time: user, time, AP, model.
fn attempts() -> Vec<(String, DateTime<Utc>, i64, &'static str)> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut at: DateTime<Utc> = "2026-01-15T20:00:00Z".parse().unwrap();
    let mut attempts = Vec::new();
    for _ in 0..260 {
        at += TimeDelta::minutes(random.i64(1..450));
        let (model, ap) = [("", 1), ("small", 2), ("large", 5)][random.usize(..3)];
        attempts.push((format!("user-{}", random.u32(..4)), at, ap, model));
    }
    attempts
}

async fn send(world: &World, gate: &GateUnderTest, who: &str, at: DateTime<Utc>, ap: i64, model: &str) -> bool {
    world.set_time(&at.to_rfc3339()).await;
    let model = ModelName::from_column(model).unwrap();
    if at.timestamp() % 3 == 0 {
        let Ok(Decision::Allowed(held)) = gate.gate.reserve(reserve(who, ap, 60)).await else { return false };
        let commit = Commit { model, ..Commit::default() };
        gate.gate.commit(&gate.gate.reservation_id(&held.reservation), commit).await.unwrap();
        return true;
    }
    let decision = gate.gate.consume(Consume { model, ..consume(who, ap) }).await.unwrap();
    matches!(decision, Decision::Allowed(_))
}

#[tokio::test]
async fn the_present_levels_and_prices_deny_nobody_and_charge_what_the_log_has() {
    let world = World::at("2026-01-15T20:00:00Z", ZONE).await;
    let gate = world.gate_with(|tuning| tuning.levels = levels(&[("free", 60), ("plus", 400)])).await;
    let (mut sent, mut charged) = (0, 0);
    for (number, (who, at, ap, model)) in attempts().into_iter().enumerate() {
        if number == 100 {
            let author = Author::person("ops", "a test").unwrap();
            let level = LevelName::parse("plus").unwrap();
            let change = ChangeLevel {
                user: user("user-1"),
                level,
                effective: Effective::Now,
                anchor_day: None,
                if_version: None,
                author,
            };
            gate.gate.change_level(change).await.unwrap();
        }
        if send(&world, &gate, &who, at, ap, model).await {
            sent += 1;
            charged += u64::try_from(ap).unwrap();
        }
    }
    gate.flush_and_verify().await;
    let prices = || {
        let given = PRICES.map(|(name, ap)| (name.to_owned(), ModelPrice::flat(name, ap).unwrap()));
        Prices::new(given, Unlisted::Default).unwrap()
    };
    let present = [("free", 60), ("plus", 400)];
    for report in [replay(&gate, &[], None).await, replay(&gate, &present, Some(prices())).await] {
        let total = report.total;
        assert_eq!((total.users, total.messages, total.overage), (4, sent, 0));
        assert_eq!((total.ap, total.proposed_ap), (charged, charged));
        assert_eq!((total.denied_users, total.denied_messages, total.proposed_overage), (0, 0, 0));
        assert!(report.most_affected.is_empty());
        assert_eq!(report.levels.iter().map(|level| level.sums.users).collect::<Vec<_>>(), [4, 1], "one was upgraded");
    }
    assert!(charged < attempts().iter().map(|attempt| u64::try_from(attempt.2).unwrap()).sum(), "some were denied");
    // An adjustment is no message.
    execute(&world.database, "insert into chat_usage_logs (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, created_at) \
         select gen_random_uuid(), 'user-0', 's', 'free', 202601, 0, 900, 0, 'adjustment', '2026-01-20Z'").await;
    assert_eq!(replay(&gate, &[], None).await.total.messages, sent);
}

#[tokio::test]
async fn a_replay_decides_what_a_gate_with_that_quota_decides() {
    let world = World::at("2026-01-15T20:00:00Z", ZONE).await;
    let gate = world.gate_with(|tuning| tuning.levels = levels(&[("free", 110)])).await;
    let mut log = Vec::new();
    for (who, at, ap, model) in attempts() {
        if send(&world, &gate, &who, at, ap, model).await {
            log.push((who, at, ap, model));
        }
    }
    gate.flush_and_verify().await;
    let report = replay(&gate, &[("free", 70)], None).await;

    let other_world = World::at("2026-01-15T20:00:00Z", ZONE).await;
    let other = other_world.gate_with(|tuning| tuning.levels = levels(&[("free", 70)])).await;
    let (mut allowed, mut denied) = ((0, 0), BTreeMap::<String, (u64, u64, i64)>::new());
    for (who, at, ap, model) in &log {
        let cost = u64::try_from(*ap).unwrap();
        if send(&other_world, &other, who, *at, *ap, model).await {
            allowed = (allowed.0 + 1, allowed.1 + cost);
        } else {
            let of_user = denied.entry(who.clone()).or_insert((0, 0, at.timestamp_millis()));
            (of_user.0, of_user.1) = (of_user.0 + 1, of_user.1 + cost);
        }
    }
    other.flush_and_verify().await;
    let total = report.total;
    assert_eq!((total.messages - total.denied_messages, total.proposed_ap), allowed);
    assert!(!denied.is_empty() && total.denied_messages < total.messages / 2);
    let replayed: BTreeMap<String, (u64, u64, i64)> = report
        .most_affected
        .iter()
        .map(|found| (found.user.clone(), (found.sums.denied_messages, found.sums.denied_ap, found.first_denied_ms)))
        .collect();
    assert_eq!(replayed, denied);
    let charged = other_world.number("select sum(ap_used)::bigint from chat_usage_logs").await;
    assert_eq!(total.proposed_ap, u64::try_from(charged).unwrap());
}

#[tokio::test]
async fn a_range_begins_and_ends_at_midnight_and_starts_with_what_the_month_has_used() {
    let world = World::at("2026-02-03T12:00:00Z", ZONE).await;
    let gate = world.gate().await;
    for (at, ap) in [
        ("2026-02-03T12:00:00Z", 30),
        // The 9th in Shanghai ends at 16:00 UTC.
        ("2026-02-09T15:59:59Z", 30),
        ("2026-02-09T16:00:00Z", 20),
        ("2026-02-10T15:59:59Z", 10),
        ("2026-02-10T16:00:00Z", 5),
    ] {
        world.set_time(at).await;
        assert!(gate.charges("ann", ap).await);
    }
    gate.flush_and_verify().await;
    let present = gate.postgres.all_levels().await.unwrap();
    let proposal = Proposal::new(&present, levels(&[("free", 85)]), None);
    let days = ReplayedDays::new(day("2026-02-10"), day("2026-02-10"), 1).unwrap();
    let report = replayer(&gate).run(days, proposal.clone()).await.unwrap();
    assert_eq!((report.total.messages, report.total.ap, report.total.proposed_ap), (2, 30, 20));
    assert_eq!((report.total.denied_messages, report.total.denied_ap), (1, 10));
    let free = report.levels.iter().find(|level| level.name == "free").unwrap();
    assert_eq!(free.first_denials, BTreeMap::from([(day("2026-02-10"), 1)]));
    let days = ReplayedDays::new(day("2026-02-10"), day("2026-02-10") + Days::new(1), 2).unwrap();
    assert_eq!(
        replayer(&gate).run(days, proposal).await.unwrap().total.proposed_ap,
        25,
        "a denied message used nothing"
    );
}

#[tokio::test]
async fn a_range_starts_with_what_a_period_of_another_anchor_day_has_used() {
    let world = World::at("2026-01-20T12:00:00Z", ZONE).await;
    let gate = world.gate().await;
    assert!(gate.charges("ann", 30).await);
    let change = ChangeLevel {
        user: user("ann"),
        level: LevelName::parse("free").unwrap(),
        effective: Effective::Now,
        anchor_day: Some(AnchorDay::new(17).unwrap()),
        if_version: None,
        author: Author::person("ops", "a test").unwrap(),
    };
    gate.gate.change_level(change).await.unwrap();
    // The period of January lasts until the 17th of February.
    world.set_time("2026-02-03T12:00:00Z").await;
    assert!(gate.charges("ann", 30).await);
    gate.flush_and_verify().await;
    let present = gate.postgres.all_levels().await.unwrap();
    let days = ReplayedDays::new(day("2026-02-03"), day("2026-02-03"), 1).unwrap();
    let report = replayer(&gate).run(days, Proposal::new(&present, levels(&[("free", 59)]), None)).await.unwrap();
    assert_eq!((report.total.messages, report.total.denied_messages), (1, 1));
}

#[tokio::test]
async fn grants_pay_in_a_replay_what_they_paid_and_levels_keep_their_windows() {
    let world = World::at("2026-02-03T12:00:00Z", ZONE).await;
    let limits = LevelLimits::parse("5h ap 80", None).unwrap();
    let free = vec![(LevelName::parse("free").unwrap(), LevelTerms { quota: Ap::new(100), limits })];
    let gate = world.gate_with(|tuning| tuning.levels = free).await;
    let pack = NewGrant {
        meter: MeterCode::CHAT,
        user: user("ann"),
        ap: Ap::new(60),
        expires_at: None,
        priority: Priority::DEFAULT,
        source: GrantSource::parse("pack").unwrap(),
        external_id: ExternalId::parse("order-1").unwrap(),
    };
    gate.gate.give_grant(&pack, &Author::program("shop", None).unwrap()).await.unwrap();
    // The window has 80 AP for the plan, so the grant pays 20.
    assert!(gate.charges("ann", 50).await && gate.charges("ann", 50).await);
    gate.flush_and_verify().await;
    let report = replay(&gate, &[], None).await;
    assert_eq!((report.total.proposed_ap, report.total.denied_messages), (100, 0));
    let free = report.levels.iter().find(|level| level.name == "free").unwrap();
    assert_eq!(free.windows[0].limit, 80, "the present windows");
    assert_eq!(replay(&gate, &[("free", 79)], None).await.total.denied_messages, 1);
    assert_eq!(replay(&gate, &[("free", 80)], None).await.total.denied_messages, 0);
}

#[tokio::test]
async fn one_replay_runs_at_a_time_and_takes_no_connection_of_the_pool() {
    let world = World::at("2026-02-03T12:00:00Z", ZONE).await;
    let gate = world.gate_with(|tuning| tuning.postgres_connections = 2).await;
    let (pause, mut paused) = tokio::sync::mpsc::channel::<()>(1);
    assert!(gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
    let proposal = || async { Proposal::new(&gate.postgres.all_levels().await.unwrap(), vec![], None) };
    let days = ReplayedDays::new(day("2026-02-01"), day("2026-02-28"), 31).unwrap();
    let from: DateTime<Utc> = "2026-02-01T00:00:00Z".parse().unwrap();
    let reader = gate.postgres.clone();
    let first = tokio::task::spawn_blocking(move || {
        let each = |_: &quota_gate::domain::price_replay::LoggedMessage<'_>| {
            // The reader is between its first message and its end until the channel closes.
            pause.try_send(()).unwrap();
            while !pause.is_closed() {
                std::thread::yield_now();
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { reader.read_messages(from, from + TimeDelta::days(30), each).await })
    });
    paused.recv().await.unwrap();
    let second = replayer(&gate).run(days, proposal().await).await;
    assert!(matches!(second, Err(PriceReplayError::Running)), "{second:?}");
    // The pool serves, and writers are not blocked.
    assert!(gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
    drop(paused);
    assert!(first.await.unwrap().unwrap());
    let third = replayer(&gate).run(days, proposal().await).await.unwrap();
    assert_eq!((third.total.messages, third.total.proposed_ap), (2, 2));
}
