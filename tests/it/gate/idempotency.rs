//! Repeated requests.

use futures_util::future::join_all;
use quota_gate::{
    domain::{ap::Ap, decision::Decision},
    gate::{Consume, GateError, Reserve},
};

use crate::support::{World, consume, key, reserve, user};

#[tokio::test]
async fn a_repeated_request_has_the_first_charge_and_the_present_numbers() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    let request = Consume { idempotency_key: Some(key("k1")), ..consume("alice", 5) };
    let Decision::Allowed(first) = one.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
    assert!(one.charges("alice", 3).await);
    let Decision::Allowed(again) = two.gate.consume(request).await.unwrap() else { panic!("denied") };
    assert!(again.replayed && !first.replayed);
    assert_eq!((again.event, again.ap, again.quota.used.get()), (first.event, first.ap, 8));
    one.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 8);
}

#[tokio::test]
async fn a_thousand_concurrent_repeats_charge_once() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await];
    let calls = (0..1000)
        .map(|n| gates[n % 2].gate.consume(Consume { idempotency_key: Some(key("storm")), ..consume("alice", 1) }));
    let firsts = join_all(calls)
        .await
        .into_iter()
        .filter(|answer| matches!(answer, Ok(Decision::Allowed(charged)) if !charged.replayed))
        .count();
    assert_eq!(firsts, 1);
    gates[0].flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 1);
}

#[tokio::test]
async fn the_same_key_with_another_request_is_a_mismatch() {
    let world = World::new().await;
    let gate = world.gate().await;
    let request = Consume { idempotency_key: Some(key("k1")), ..consume("alice", 5) };
    gate.gate.consume(request.clone()).await.unwrap();
    let other_cost = Consume { ap: Ap::new(6), ..request.clone() };
    assert!(matches!(gate.gate.consume(other_cost).await, Err(GateError::Mismatch(_))));
    let other_route = Reserve { idempotency_key: Some(key("k1")), ..reserve("alice", 5, 60) };
    assert!(matches!(gate.gate.reserve(other_route).await, Err(GateError::Mismatch(_))));
    // The same key of another user is a different key.
    let other_user = Consume { idempotency_key: Some(key("k1")), ..consume("bob", 6) };
    assert!(matches!(gate.gate.consume(other_user).await, Ok(Decision::Allowed(_))));
}

#[tokio::test]
async fn a_repeated_reservation_has_the_same_id() {
    let world = World::new().await;
    let gate = world.gate().await;
    let request = Reserve { idempotency_key: Some(key("r1")), ..reserve("alice", 5, 60) };
    let Decision::Allowed(first) = gate.gate.reserve(request.clone()).await.unwrap() else { panic!("denied") };
    let Decision::Allowed(again) = gate.gate.reserve(request).await.unwrap() else { panic!("denied") };
    assert!(again.replayed);
    assert_eq!(again.reservation, first.reservation);
    assert_eq!(gate.gate.quota(&first.quota.user).await.unwrap().held.get(), 5);
}

#[tokio::test]
async fn a_denial_is_not_stored_so_the_key_works_after_an_upgrade() {
    let world = World::new().await;
    let gate = world.gate().await;
    let request = Consume { idempotency_key: Some(key("k1")), ..consume("alice", 150) };
    assert!(matches!(gate.gate.consume(request.clone()).await.unwrap(), Decision::Denied(_)));
    super::levels::give(&gate, "alice", "basic").await;
    let Decision::Allowed(charged) = gate.gate.consume(request).await.unwrap() else { panic!("denied") };
    assert!(!charged.replayed);
}

#[tokio::test]
async fn a_key_with_a_flushed_charge_is_recognized_after_redis_lost_everything() {
    let world = World::new().await;
    let (gate, unaware) = (world.gate().await, world.gate().await);
    let request = Consume { idempotency_key: Some(key("k1")), ..consume("alice", 5) };
    let Decision::Allowed(first) = gate.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
    gate.flush_and_verify().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    // Another request detects the loss first, so alice's record is back before the repeat.
    assert!(gate.charges("alice", 1).await);
    let Decision::Allowed(again) = gate.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
    assert!(again.replayed);
    assert_eq!((again.event, again.ap), (first.event, first.ap));
    // A gate that has not detected the loss does not charge it either.
    let Decision::Allowed(again) = unaware.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
    assert!(again.replayed);
    let other = Consume { ap: Ap::new(6), ..request };
    assert!(matches!(gate.gate.consume(other).await, Err(GateError::Mismatch(_))));
    // A new key is charged once.
    let fresh = Consume { idempotency_key: Some(key("k2")), ..consume("alice", 2) };
    let firsts = join_all((0..10).map(|_| gate.gate.consume(fresh.clone())))
        .await
        .into_iter()
        .filter(|answer| matches!(answer, Ok(Decision::Allowed(charged)) if !charged.replayed))
        .count();
    assert_eq!(firsts, 1);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 8);
}

#[tokio::test]
async fn long_after_a_loss_a_message_with_a_key_needs_no_postgres() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    assert!(gate.charges("alice", 5).await);
    gate.flush_and_verify().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    world.set_time("2026-11-10T12:00:00Z").await;
    gate.gate.leave_generation(partition, 1).await.unwrap();
    let before = Consume { idempotency_key: Some(key("k0")), ..consume("alice", 5) };
    assert!(
        matches!(gate.gate.consume(before).await, Ok(Decision::Allowed(_))),
        "her record belongs to this generation"
    );
    // A little longer than keys are stored.
    world.set_time("2026-11-11T12:00:02Z").await;
    gate.postgres.close().await;
    let request = Consume { idempotency_key: Some(key("k1")), ..consume("alice", 5) };
    assert!(matches!(gate.gate.consume(request).await, Ok(Decision::Allowed(_))));
}

#[tokio::test]
async fn no_two_pairs_of_user_and_key_share_an_answer() {
    let world = World::new().await;
    let gate = world.gate().await;
    let ask = async |who: &str, its_key: &str| {
        let request = Consume { idempotency_key: Some(key(its_key)), ..consume(who, 5) };
        let Decision::Allowed(charged) = gate.gate.consume(request).await.unwrap() else { panic!("denied") };
        charged.replayed
    };
    // Joined by a colon, both pairs would be the same text and share an answer if they share a partition.
    for number in 0..16 {
        assert!(!ask(&format!("team-{number}"), "alice:1").await);
        assert!(!ask(&format!("team-{number}:alice"), "1").await);
    }
}

#[tokio::test]
async fn after_an_opening_that_lost_nothing_a_message_with_a_key_needs_no_postgres() {
    let world = World::new().await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    let request = Consume { idempotency_key: Some(key("k1")), ..consume("alice", 5) };
    let Decision::Allowed(first) = gate.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
    gate.flush_and_verify().await;
    // One charge is in the log, one is not: both are in Redis, as after a restart with its append-only file.
    assert!(gate.charges("alice", 1).await);
    gate.gate.leave_generation(partition, 1).await.unwrap();
    assert_eq!(world.number("select count(*) from flush_watermarks where answers_since is null").await, 2);
    assert!(gate.charges("alice", 1).await, "her record belongs to this generation");
    let unaware = world.gate().await;
    assert!(unaware.charges("alice", 1).await);
    let (again, fresh) = (request.clone(), Consume { idempotency_key: Some(key("k2")), ..request });
    for gate in [&gate, &unaware] {
        // The first message with a key reads since when the answers are complete.
        let asked = Consume { idempotency_key: Some(key("k0")), ..consume("alice", 1) };
        assert!(matches!(gate.gate.consume(asked).await, Ok(Decision::Allowed(_))));
        gate.postgres.close().await;
        let Decision::Allowed(again) = gate.gate.consume(again.clone()).await.unwrap() else { panic!("denied") };
        assert!(again.replayed && again.event == first.event);
        assert!(matches!(gate.gate.consume(fresh.clone()).await, Ok(Decision::Allowed(_))));
    }
}

#[tokio::test]
async fn a_key_that_is_used_again_after_its_time_makes_another_charge_that_no_opening_drops() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    let request = Consume { idempotency_key: Some(key("daily")), ..consume("alice", 5) };
    let mut events = Vec::new();
    for day in 10..14 {
        world.set_time(&format!("2026-11-{day}T12:00:0{}Z", day - 10)).await;
        let Decision::Allowed(charged) = gate.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
        assert!(!charged.replayed, "day {day}");
        events.push(charged.event);
        if day % 2 == 0 {
            gate.flush_and_verify().await;
        } else {
            // The opening drains the charge, and the log has one under the same key.
            let generation = gate.gate.generation(partition);
            gate.gate.leave_generation(partition, generation).await.unwrap();
        }
        let Decision::Allowed(again) = gate.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
        assert!(again.replayed && again.event == charged.event, "day {day}");
    }
    events.dedup();
    assert_eq!(events.len(), 4);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 20);
}

#[tokio::test]
async fn a_key_is_recognized_in_the_next_epoch_after_a_loss() {
    let world = World::at("2026-11-10T00:00:00Z", "UTC").await;
    let gate = world.gate().await;
    // Within a day, the epoch of each key ends once: at some time between request and repeat.
    let requests: Vec<Consume> = (0..20)
        .map(|n| Consume { idempotency_key: Some(key(&format!("k{n}"))), ..consume(&format!("user-{n}"), 5) })
        .collect();
    let mut events = Vec::new();
    for request in &requests {
        let Decision::Allowed(first) = gate.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
        events.push(first.event);
    }
    gate.flush_and_verify().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    world.set_time("2026-11-10T23:59:00Z").await;
    let again = join_all(requests.iter().map(|request| gate.gate.consume(request.clone()))).await;
    for (again, event) in again.into_iter().zip(events) {
        let Decision::Allowed(again) = again.unwrap() else { panic!("denied") };
        assert!(again.replayed && again.event == event);
    }
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 20);
}
