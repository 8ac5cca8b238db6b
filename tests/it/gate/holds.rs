//! Every row of the table of holds in ARCHITECTURE.md, over two gates, with a test clock.

use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Committed, Decision},
        hold::Ttl,
        usage::Tokens,
    },
    gate::{Commit, GateError},
};

use crate::support::{GateUnderTest, World, reserve, user};

async fn hold(gate: &GateUnderTest, ap: i64, ttl_seconds: i64) -> String {
    match gate.gate.reserve(reserve("alice", ap, ttl_seconds)).await.unwrap() {
        Decision::Allowed(held) => gate.gate.reservation_id(&held.reservation),
        denied => panic!("{denied:?}"),
    }
}

async fn commit(gate: &GateUnderTest, id: &str, ap: u32) -> Result<Committed, GateError> {
    let commit = Commit { ap: Some(Ap::new(ap)), tokens: Tokens::new(7).unwrap(), model: None };
    gate.gate.commit(id, commit).await.map(|settled| settled.now().expect("Redis is available"))
}

async fn numbers(gate: &GateUnderTest) -> (u32, u32, u32) {
    let quota = gate.gate.quota(&user("alice")).await.unwrap();
    (quota.used.get(), quota.held.get(), quota.remaining().get())
}

fn settled(committed: &Committed) -> (u32, u32, bool, bool) {
    (committed.charged.get(), committed.overage.get(), committed.late, committed.replayed)
}

async fn world() -> (World, GateUnderTest, GateUnderTest) {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let (one, two) = (world.gate().await, world.gate().await);
    (world, one, two)
}

#[tokio::test]
async fn a_commit_within_the_hold_is_charged_and_the_rest_is_returned() {
    let (world, one, two) = world().await;
    let id = hold(&one, 10, 60).await;
    assert_eq!(numbers(&two).await, (0, 10, 90));
    assert_eq!(settled(&commit(&two, &id, 7).await.unwrap()), (7, 0, false, false));
    assert_eq!(numbers(&one).await, (7, 0, 93));
    one.flush_and_verify().await;
    assert_eq!(
        world.number("select tokens_used::bigint from chat_usage_logs where kind = 'commit' and ap_used = 7").await,
        7
    );
}

#[tokio::test]
async fn a_commit_beyond_the_hold_charges_what_is_free_and_records_the_rest_as_overage() {
    let (world, one, two) = world().await;
    let id = hold(&one, 10, 60).await;
    assert!(two.charges("alice", 85).await);
    assert_eq!(settled(&commit(&two, &id, 20).await.unwrap()), (15, 5, false, false));
    assert_eq!(numbers(&one).await, (100, 0, 0));
    one.flush_and_verify().await;
    assert_eq!(world.number("select sum(overage)::bigint from chat_usage_logs").await, 5);
    assert_eq!(world.number("select monthly_overage from chat_quotas").await, 5);
}

#[tokio::test]
async fn a_repeated_commit_has_the_same_answer_and_another_cost_is_a_mismatch() {
    let (_world, one, two) = world().await;
    let id = hold(&one, 10, 60).await;
    commit(&one, &id, 7).await.unwrap();
    assert_eq!(settled(&commit(&two, &id, 7).await.unwrap()), (7, 0, false, true));
    assert!(matches!(commit(&two, &id, 8).await, Err(GateError::Mismatch(_))));
    assert_eq!(numbers(&one).await, (7, 0, 93));
    assert_eq!(one.flush_and_verify().await.users, 1);
}

#[tokio::test]
async fn a_committed_hold_cannot_be_released_nor_a_released_hold_committed() {
    let (_world, one, two) = world().await;
    let (charged, given_back) = (hold(&one, 10, 60).await, hold(&one, 10, 60).await);
    commit(&one, &charged, 10).await.unwrap();
    one.gate.release(&given_back).await.unwrap();
    assert!(matches!(two.gate.release(&charged).await, Err(GateError::AlreadySettled(_))));
    assert!(matches!(commit(&two, &given_back, 10).await, Err(GateError::AlreadySettled(_))));
    assert!(matches!(two.gate.extend(&charged, Ttl::DEFAULT).await, Err(GateError::AlreadySettled(_))));
    assert_eq!(numbers(&two).await, (10, 0, 90));
}

#[tokio::test]
async fn a_commit_after_expiry_charges_only_what_is_free() {
    let (world, one, two) = world().await;
    let id = hold(&one, 10, 60).await;
    world.set_time("2026-11-20T12:01:00Z").await;
    assert_eq!(numbers(&two).await, (0, 0, 100));
    assert!(two.charges("alice", 94).await);
    assert_eq!(settled(&commit(&two, &id, 10).await.unwrap()), (6, 4, true, false));
    assert_eq!(settled(&commit(&one, &id, 10).await.unwrap()), (6, 4, true, true));
    one.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs where kind = 'late_commit'").await, 1);
}

#[tokio::test]
async fn a_commit_after_the_settle_window_charges_nothing() {
    let (world, one, two) = world().await;
    let id = hold(&one, 10, 60).await;
    world.set_time("2026-11-20T12:11:00.001Z").await;
    assert!(matches!(commit(&two, &id, 10).await, Err(GateError::ReservationExpired(_))));
    assert_eq!(numbers(&one).await, (0, 0, 100));
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 0);
}

#[tokio::test]
async fn a_commit_in_a_later_period_is_charged_to_the_holds_period() {
    let (world, one, two) = world().await;
    world.set_time("2026-11-30T23:59:30Z").await;
    let id = hold(&one, 10, 60).await;
    world.set_time("2026-12-01T00:00:10Z").await;
    assert!(two.charges("alice", 100).await, "the new period has its full quota");
    assert_eq!(settled(&commit(&two, &id, 12).await.unwrap()), (10, 2, false, false));
    assert_eq!(numbers(&one).await, (100, 0, 0));
    one.flush_and_verify().await;
    assert_eq!(world.number("select used from chat_quota_months where period = 202611").await, 10);
    assert_eq!(world.number("select overage from chat_quota_months where period = 202611").await, 2);
    assert_eq!(world.number("select monthly_used from chat_quotas where period = 202612").await, 100);
}

#[tokio::test]
async fn a_late_commit_in_a_later_period_charges_only_a_hold_that_outlived_its_period() {
    let (world, one, two) = world().await;
    world.set_time("2026-11-30T23:58:30Z").await;
    let (ended_before, outlived) = (hold(&one, 10, 60).await, hold(&one, 20, 120).await);
    world.set_time("2026-12-01T00:02:00Z").await;
    assert_eq!(settled(&commit(&two, &ended_before, 10).await.unwrap()), (0, 10, true, false));
    assert_eq!(settled(&commit(&two, &outlived, 20).await.unwrap()), (20, 0, true, false));
    assert_eq!(numbers(&one).await, (0, 0, 100));
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_release_returns_the_whole_hold_and_may_be_repeated() {
    let (world, one, two) = world().await;
    let id = hold(&one, 10, 60).await;
    assert!(!one.gate.release(&id).await.unwrap().now().unwrap().replayed);
    assert!(two.gate.release(&id).await.unwrap().now().unwrap().replayed);
    let late = hold(&one, 10, 60).await;
    world.set_time("2026-11-20T12:05:00Z").await;
    assert_eq!(two.gate.release(&late).await.unwrap().now().unwrap().quota.held.get(), 0);
    assert_eq!(numbers(&two).await, (0, 0, 100));
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 0);
}

#[tokio::test]
async fn a_hold_whose_holder_died_expires() {
    let (world, one, two) = world().await;
    hold(&one, 100, 60).await;
    drop(one);
    assert!(!two.charges("alice", 1).await);
    world.set_time("2026-11-20T12:01:00Z").await;
    assert!(two.charges("alice", 100).await);
    two.flush_and_verify().await;
}

#[tokio::test]
async fn an_extended_hold_lasts_longer_and_an_expired_hold_cannot_be_extended() {
    let (world, one, two) = world().await;
    let id = hold(&one, 10, 60).await;
    world.set_time("2026-11-20T12:00:50Z").await;
    let extended = two.gate.extend(&id, Ttl::from_seconds(60).unwrap()).await.unwrap();
    let extended = two.gate.reservation_id(&extended.reservation);
    world.set_time("2026-11-20T12:01:40Z").await;
    assert_eq!(numbers(&one).await, (0, 10, 90));
    // The old id still names the hold.
    assert_eq!(settled(&commit(&one, &id, 10).await.unwrap()), (10, 0, false, false));
    assert_eq!(settled(&commit(&two, &extended, 10).await.unwrap()), (10, 0, false, true));
    let short = hold(&one, 10, 1).await;
    world.set_time("2026-11-20T12:02:00Z").await;
    assert!(matches!(one.gate.extend(&short, Ttl::DEFAULT).await, Err(GateError::ReservationExpired(_))));
}

#[tokio::test]
async fn a_record_takes_at_most_64_holds() {
    let (_world, one, _two) = world().await;
    for _ in 0..64 {
        hold(&one, 1, 60).await;
    }
    assert!(matches!(one.gate.reserve(reserve("alice", 1, 60)).await, Err(GateError::TooManyHolds(64))));
}

#[tokio::test]
async fn an_id_that_no_gate_signed_settles_nothing() {
    let (_world, one, _two) = world().await;
    for id in ["", "x", "AQGiBshyLXbMmO_F8-itOHoAAAAKAxdzAaIGyVyNAAAAAQlmcmVlLXVzZXI"] {
        assert!(matches!(commit(&one, id, 1).await, Err(GateError::UnknownReservation)));
        assert!(matches!(one.gate.release(id).await, Err(GateError::UnknownReservation)));
    }
}
