//! Windows, requests per window and concurrency of levels, with real gates.

use chrono::{DateTime, Utc};
use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, Denied, Reserved},
        level::{LevelName, LevelTerms},
        user_limits::LimitState,
        window::LevelLimits,
    },
    gate::{Commit, GateError},
    jobs::resetter::Trigger,
};

use crate::support::{GateUnderTest, World, eventually, reserve, user};

/// One level with these windows.
fn level(quota: u32, windows: &str, concurrency: Option<u8>) -> Vec<(LevelName, LevelTerms)> {
    let limits = LevelLimits::parse(windows, concurrency).unwrap();
    vec![(LevelName::parse("free").unwrap(), LevelTerms { quota: Ap::new(quota), limits })]
}

async fn gate(world: &World, windows: &str, concurrency: Option<u8>) -> GateUnderTest {
    world.gate_with(|tuning| tuning.levels = level(1_000, windows, concurrency)).await
}

/// Name, used and held of each limit beside the quota.
async fn limits(gate: &GateUnderTest, who: &str) -> Vec<(String, u32, u32)> {
    let quota = gate.gate.quota(&user(who)).await.unwrap();
    let end = gate.gate.calendar().period_end(quota.period, quota.anchor_day);
    let shown = |state: &LimitState| (state.limit.name(), state.used, state.held);
    quota.limit_states(end).iter().skip(1).map(shown).collect()
}

fn limit(name: &str, used: u32, held: u32) -> (String, u32, u32) {
    (name.to_owned(), used, held)
}

async fn denied(gate: &GateUnderTest, who: &str, ap: i64) -> Denied {
    match gate.consume(who, ap).await.unwrap() {
        Decision::Denied(denied) => denied,
        allowed => panic!("{allowed:?}"),
    }
}

/// The limits that deny a message, and when it would be allowed.
fn reasons(gate: &GateUnderTest, denied: &Denied) -> (Vec<String>, Option<DateTime<Utc>>) {
    let binding = denied.binding(gate.gate.calendar());
    (binding.iter().map(|binding| binding.state.limit.name()).collect(), denied.retry_at(gate.gate.calendar()))
}

async fn held(gate: &GateUnderTest, who: &str, ap: i64) -> Result<Reserved, Denied> {
    match gate.gate.reserve(reserve(who, ap, 60)).await.unwrap() {
        Decision::Allowed(reserved) => Ok(reserved),
        Decision::Denied(denied) => Err(denied),
        Decision::Passed(passed) => panic!("{passed:?}"),
    }
}

async fn commit(gate: &GateUnderTest, reserved: &Reserved, ap: u32) -> Result<(u32, u32), GateError> {
    let id = gate.gate.reservation_id(&reserved.reservation);
    let commit = Commit { ap: Some(Ap::new(ap)), ..Commit::default() };
    let committed = gate.gate.commit(&id, commit).await?.now().expect("Redis answers");
    Ok((committed.charged.get(), committed.overage.get()))
}

#[tokio::test]
async fn a_window_begins_with_its_first_charge_and_ends_after_its_length() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = gate(&world, "5h ap 80, 7d ap 100", None).await;
    assert_eq!(limits(&gate, "alice").await, [limit("5h", 0, 0), limit("7d", 0, 0)]);
    world.set_time("2026-11-10T13:00:00Z").await;
    assert!(gate.charges("alice", 78).await);
    let refused = denied(&gate, "alice", 3).await;
    assert_eq!(reasons(&gate, &refused), (vec!["5h".to_owned()], Some("2026-11-10T18:00:00Z".parse().unwrap())));
    assert_eq!(refused.shortfall(), Ap::ONE);
    assert!(gate.charges("alice", 2).await);

    world.set_time("2026-11-10T17:59:59.999Z").await;
    denied(&gate, "alice", 1).await;
    world.set_time("2026-11-10T18:00:00Z").await;
    let refused = denied(&gate, "alice", 21).await;
    assert_eq!(reasons(&gate, &refused), (vec!["7d".to_owned()], Some("2026-11-17T13:00:00Z".parse().unwrap())));
    assert!(gate.charges("alice", 20).await);
    assert_eq!(limits(&gate, "alice").await, [limit("5h", 20, 0), limit("7d", 100, 0)]);
    let refused = denied(&gate, "alice", 81).await;
    assert_eq!(reasons(&gate, &refused).1, None, "no window ever allows that much");
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_hold_counts_in_the_window_in_which_it_was_made() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = gate(&world, "1m ap 10, 1m requests 3", None).await;
    let first = held(&gate, "alice", 8).await.unwrap();
    assert_eq!(limits(&gate, "alice").await, [limit("1m", 0, 8), limit("1m-requests", 0, 1)]);
    held(&gate, "alice", 3).await.unwrap_err();
    assert_eq!(commit(&gate, &first, 11).await.unwrap(), (10, 1), "a commit above its hold has the rest of the window");
    assert_eq!(limits(&gate, "alice").await, [limit("1m", 10, 0), limit("1m-requests", 1, 0)]);

    world.set_time("2026-11-10T12:00:59Z").await;
    let released = held(&gate, "bob", 5).await.unwrap();
    let late = held(&gate, "bob", 5).await.unwrap();
    gate.gate.release(&gate.gate.reservation_id(&released.reservation)).await.unwrap();
    assert_eq!(limits(&gate, "bob").await, [limit("1m", 0, 5), limit("1m-requests", 0, 1)]);
    // The window is over and another one has begun: the hold counts in neither.
    world.set_time("2026-11-10T12:02:00Z").await;
    let extended = gate.gate.extend(&gate.gate.reservation_id(&late.reservation), ttl(900)).await;
    assert!(matches!(extended, Err(GateError::ReservationExpired(_))), "{extended:?}");
    assert!(gate.charges("bob", 9).await);
    assert_eq!(commit(&gate, &late, 5).await.unwrap(), (1, 4), "an expired hold has what is free");
    assert_eq!(limits(&gate, "bob").await, [limit("1m", 10, 0), limit("1m-requests", 2, 0)]);
    gate.flush_and_verify().await;
}

fn ttl(seconds: i64) -> quota_gate::domain::hold::Ttl {
    quota_gate::domain::hold::Ttl::from_seconds(seconds).unwrap()
}

#[tokio::test]
async fn requests_are_exact_over_two_gates() {
    let world = World::new().await;
    let one = gate(&world, "1d requests 25", None).await;
    let two = world.gate().await;
    let messages = (0..60).map(async |number| {
        let gate = if number % 2 == 0 { &one } else { &two };
        if number % 3 == 0 { held(gate, "alice", 1).await.is_ok() } else { gate.charges("alice", 1).await }
    });
    let allowed = futures_util::future::join_all(messages).await;
    assert_eq!(allowed.into_iter().filter(|allowed| *allowed).count(), 25);
    let refused = denied(&two, "alice", 1).await;
    assert_eq!(reasons(&two, &refused).0, ["1d-requests"]);
    one.flush_and_verify().await;
}

#[tokio::test]
async fn concurrency_bounds_holds_only_and_a_crashed_holder_frees_its_place() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = gate(&world, "", Some(2)).await;
    let first = held(&gate, "alice", 1).await.unwrap();
    held(&gate, "alice", 1).await.unwrap();
    let refused = held(&gate, "alice", 1).await.unwrap_err();
    let expiry = "2026-11-10T12:01:00Z".parse().unwrap();
    assert_eq!(reasons(&gate, &refused), (vec!["concurrency".to_owned()], Some(expiry)));
    assert!(gate.charges("alice", 1).await, "a message in one step occupies no place");
    assert_eq!(limits(&gate, "alice").await, [limit("concurrency", 0, 2)]);

    commit(&gate, &first, 1).await.unwrap();
    held(&gate, "alice", 1).await.unwrap();
    held(&gate, "alice", 1).await.unwrap_err();
    // The two holds are not settled.
    world.set_time("2026-11-10T12:01:00Z").await;
    held(&gate, "alice", 1).await.unwrap();
    held(&gate, "alice", 1).await.unwrap();
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn after_a_loss_windows_are_rebuilt_from_the_log() {
    let world = World::new().await;
    let (one, two) = (gate(&world, "5h ap 80, 1h requests 4", None).await, world.gate().await);
    assert!(one.charges("alice", 50).await && two.charges("alice", 10).await);
    let hold = held(&one, "alice", 15).await.unwrap();
    commit(&one, &hold, 12).await.unwrap();
    one.flush_and_verify().await;
    let before = one.gate.quota(&user("alice")).await.unwrap().limits.windows;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    assert_eq!(two.gate.quota(&user("alice")).await.unwrap().limits.windows, before);
    denied(&two, "alice", 9).await;
    assert!(one.charges("alice", 8).await);
    assert_eq!(reasons(&one, &denied(&one, "alice", 1).await).0, ["1h-requests", "5h"]);
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_restart_of_redis_keeps_a_window_that_is_half_used() {
    let mut world = World::new().await;
    let gate = gate(&world, "5h ap 80", None).await;
    assert!(gate.charges("alice", 50).await);
    world.redis.kill().await;
    world.redis.restart().await.unwrap();
    eventually("the gate answers again", async || gate.gate.quota_and_holds(&user("alice")).await.is_ok()).await;
    assert_eq!(limits(&gate, "alice").await, [limit("5h", 50, 0)]);
    denied(&gate, "alice", 31).await;
    assert!(gate.charges("alice", 30).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn verify_finds_a_window_that_was_changed_by_hand() {
    let world = World::new().await;
    let gate = gate(&world, "5h ap 80", None).await;
    assert!(gate.charges("alice", 50).await);
    gate.flush_and_verify().await;
    sqlx::query("update chat_usage_logs set windows = null").execute(&world.pool).await.unwrap();
    let verdict = gate.verifier.verify().await.unwrap();
    assert_eq!(verdict.differences.len(), 1);
    assert_eq!(
        verdict.differences[0].windows[0].counted,
        ((verdict.differences[0].windows[0].counted.0.0, 50), (0, 0))
    );
}

#[tokio::test]
async fn a_repair_logs_what_windows_have_counted_so_that_they_survive_a_loss() {
    let world = World::new().await;
    let gate = gate(&world, "5h ap 80, 5h requests 3", None).await;
    assert!(gate.charges("alice", 30).await && gate.charges("bob", 40).await);
    gate.flush_and_verify().await;
    assert!(gate.charges("alice", 20).await);
    gate.flush_and_verify().await;
    // As if Postgres had been restored from a copy without the second charge, and without bob's window.
    for sql in [
        "delete from chat_usage_logs where ap_used = 20",
        "delete from usage_days",
        "insert into usage_days (day, membership_level, model, partition, messages, ap, overage, tokens)
         select created_at::date, membership_level, model, 0, count(*), sum(ap_used), 0, 0 from chat_usage_logs group by 1, 2, 3",
        "update chat_quotas set monthly_used = 30, total_used = 30 where user_uuid = 'alice'",
        "update chat_usage_logs set windows = null where user_uuid = 'bob'",
    ] {
        crate::support::execute(&world.database, sql).await;
    }
    assert_eq!(gate.verifier.verify().await.unwrap().differences.len(), 2);
    let repaired = gate.repairer.repair().await.unwrap();
    assert_eq!((repaired.adjustments, repaired.left), (2, 0));
    gate.flush_and_verify().await;
    let before = (limits(&gate, "alice").await, limits(&gate, "bob").await);
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    assert_eq!((limits(&gate, "alice").await, limits(&gate, "bob").await), before);
    assert_eq!(before.1, [limit("5h", 40, 0), limit("5h-requests", 1, 0)]);
}

#[tokio::test]
async fn verify_does_not_compare_a_window_that_was_over_before_the_row_changed() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = gate(&world, "5h ap 80", None).await;
    assert!(gate.charges("alice", 50).await);
    gate.flush_and_verify().await;
    world.set_time("2026-12-01T00:00:05Z").await;
    gate.resetter.run(Trigger::Schedule).await.unwrap();
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn applied_windows_bind_every_gate_and_every_known_user() {
    let world = World::new().await;
    let (one, two) = (gate(&world, "", None).await, world.gate().await);
    assert!(two.charges("alice", 50).await);
    one.gate.apply_levels(&level(1_000, "5h ap 80", Some(1)), |_| {}).await.unwrap();
    // Redis has them, whatever the second gate has read.
    assert!(two.charges("alice", 80).await, "charges from before the window do not count");
    denied(&two, "alice", 1).await;
    assert_eq!(limits(&two, "alice").await, [limit("5h", 80, 0), limit("concurrency", 0, 0)]);
    one.flush_and_verify().await;
    one.gate.apply_levels(&level(1_000, "", None), |_| {}).await.unwrap();
    assert!(two.charges("alice", 1).await);
    assert_eq!(limits(&two, "alice").await, []);
    one.flush_and_verify().await;
}

#[tokio::test]
async fn the_sweeper_frees_expired_holds_of_users_with_windows() {
    let world = World::new().await;
    let gate = gate(&world, "5h ap 80", None).await;
    assert!(gate.charges("alice", 10).await);
    let Decision::Allowed(_) = gate.gate.reserve(reserve("alice", 5, 1)).await.unwrap() else { panic!("denied") };
    gate.flush_and_verify().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    let record = async || gate.redis.record(partition, &user("alice")).await.unwrap().unwrap();
    assert_eq!((record().await.holds.len(), record().await.held), (1, Ap::new(5)));
    eventually("the hold is swept", async || gate.sweeper.sweep().await.unwrap().freed == 1).await;
    let swept = record().await;
    assert_eq!((swept.holds.len(), swept.held, swept.windows[0].used), (0, Ap::ZERO, 10));
    assert!(gate.charges("alice", 70).await);
    gate.flush_and_verify().await;
}
