//! The end of a period: one allowance per user and period, however often and wherever it is reset.

use futures_util::future::join_all;
use quota_gate::jobs::resetter::Trigger;

use crate::support::{World, user};

/// The last second of a period and the first of the next, in several calendars.
const ENDS: [(&str, &str, &str, i64, i64); 5] = [
    ("UTC", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", 202_612, 202_701),
    ("UTC", "2028-02-29T23:59:59Z", "2028-03-01T00:00:00Z", 202_802, 202_803),
    ("UTC", "2027-02-28T23:59:59Z", "2027-03-01T00:00:00Z", 202_702, 202_703),
    ("Asia/Shanghai", "2026-11-30T15:59:59Z", "2026-11-30T16:00:00Z", 202_611, 202_612),
    ("America/New_York", "2026-11-01T03:59:59Z", "2026-11-01T04:00:00Z", 202_610, 202_611),
];

#[tokio::test]
async fn a_period_ends_at_midnight_of_its_time_zone() {
    for (zone, before, after, old, new) in ENDS {
        let world = World::at(before, zone).await;
        let gate = world.gate().await;
        assert!(gate.charges("alice", 100).await && !gate.charges("alice", 1).await, "{before}");
        world.set_time(after).await;
        assert!(gate.charges("alice", 60).await && !gate.charges("alice", 60).await, "{after}");
        gate.flush_and_verify().await;
        assert_eq!(world.number(&format!("select used from chat_quota_months where period = {old}")).await, 100);
        assert_eq!(world.number(&format!("select monthly_used from chat_quotas where period = {new}")).await, 60);
    }
}

#[tokio::test]
async fn due_rows_roll_once_however_often_and_by_whichever_gate_they_are_reset() {
    let world = World::at("2026-11-30T12:00:00Z", "UTC").await;
    let (one, two) = (world.gate().await, world.gate().await);
    let names: Vec<String> = (0..50).map(|n| format!("user-{n}")).collect();
    join_all(names.iter().map(|name| one.charges(name, 3))).await;
    one.flush_and_verify().await;
    world.set_time("2026-12-01T02:00:00Z").await;
    let runs = (0..10)
        .map(|n| if n % 2 == 0 { one.resetter.run(Trigger::Endpoint) } else { two.resetter.run(Trigger::Schedule) });
    let rolled: u64 = join_all(runs).await.into_iter().map(|run| run.unwrap().reset_count).sum();
    assert_eq!(rolled, 50);
    assert_eq!(world.number("select sum(used)::bigint from chat_quota_months where period = 202611").await, 150);
    assert_eq!(world.number("select count(*) from chat_quota_months").await, 50);
    assert_eq!(world.number("select count(*) from chat_quotas where period = 202612 and monthly_used = 0").await, 50);
    assert_eq!(
        world.number("select count(*) from reset_runs where finished_at is not null and error is null").await,
        10
    );
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_hundred_resets_at_the_boundary_grant_only_one_allowance() {
    let world = World::at("2026-11-30T23:59:59Z", "UTC").await;
    let (one, two) = (world.gate().await, world.gate().await);
    assert!(one.charges("alice", 100).await);
    world.set_time("2026-12-01T00:00:00Z").await;
    let charging = async {
        let mut admitted = 0;
        for _ in 0..150 {
            admitted += usize::from(two.charges("alice", 1).await);
        }
        admitted
    };
    let resetting = async {
        for _ in 0..100 {
            one.resetter.run(Trigger::Endpoint).await.unwrap();
        }
    };
    let flushing = async {
        for _ in 0..20 {
            one.flusher.flush_all().await.unwrap();
        }
    };
    let (admitted, (), ()) = tokio::join!(charging, resetting, flushing);
    assert_eq!(admitted, 100);
    one.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 200);
}

#[tokio::test]
async fn late_events_count_in_their_own_month_whether_flush_or_reset_runs_first() {
    for reset_first in [true, false] {
        let world = World::at("2026-11-30T23:59:00Z", "UTC").await;
        let gate = world.gate().await;
        assert!(gate.charges("alice", 30).await);
        gate.flush_and_verify().await;
        assert!(gate.charges("alice", 12).await);
        world.set_time("2026-12-01T00:00:05Z").await;
        assert!(gate.charges("alice", 5).await);
        if reset_first {
            gate.resetter.run(Trigger::Schedule).await.unwrap();
        }
        gate.flush_and_verify().await;
        gate.resetter.run(Trigger::Schedule).await.unwrap();
        assert_eq!(world.number("select used from chat_quota_months where period = 202611").await, 42, "{reset_first}");
        assert_eq!(world.number("select monthly_used from chat_quotas").await, 5, "{reset_first}");
        assert_eq!(world.number("select total_used from chat_quotas").await, 47, "{reset_first}");
        gate.flush_and_verify().await;
    }
}

#[tokio::test]
async fn idle_users_are_reset_too_and_return_to_a_full_quota() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 100).await);
    gate.flush_and_verify().await;
    world.set_time("2027-02-10T12:00:00Z").await;
    assert_eq!(gate.resetter.run(Trigger::Schedule).await.unwrap().reset_count, 1);
    assert_eq!(world.number("select period::bigint from chat_quotas").await, 202_702);
    assert!(gate.charges("alice", 100).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_clock_that_jumps_starts_no_new_month() {
    let world = World::at("2026-11-30T23:58:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 100).await);
    // Only the clock of Redis is in December.
    world.set_redis_time("2026-12-01T01:00:00Z".parse().unwrap()).await;
    let refused = gate.consume("alice", 1).await.unwrap_err().to_string();
    assert!(refused.contains("clock of Redis"), "{refused}");
    // The clock jumps back: earlier decisions stay valid.
    world.set_time("2026-12-01T00:00:01Z").await;
    assert!(gate.charges("alice", 40).await);
    world.set_time("2026-11-30T23:59:30Z").await;
    assert!(!gate.charges("alice", 61).await, "a record never returns to a month that is over");
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().period.to_string(), "2026-12");
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn used_today_starts_over_at_midnight_and_survives_a_reload() {
    let world = World::at("2026-11-20T23:59:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 10).await);
    world.set_time("2026-11-21T00:00:01Z").await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used_today.get(), 0);
    assert!(gate.charges("alice", 4).await);
    gate.flush_and_verify().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    let mut connection = world.redis_connection().await;
    let _: () =
        redis::cmd("DEL").arg(format!("qg:{{{partition}}}:u:alice")).query_async(&mut connection).await.unwrap();
    let quota = gate.gate.quota(&user("alice")).await.unwrap();
    assert_eq!((quota.used.get(), quota.used_today.get(), quota.total_used), (14, 4, 14));
}
