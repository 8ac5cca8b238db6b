//! Redis is unavailable: settlements are accepted and applied once later; messages are refused, or charged later.

use std::time::Duration;

use futures_util::future::join_all;
use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, OnRedisFailure, Settled},
        hold::Reservation,
        level::{LevelName, LevelTerms},
        quota::Source,
        token_kinds::TokenKinds,
        usage::Tokens,
        window::LevelLimits,
    },
    gate::{Commit, Consume, GateError},
    store::postgres::{InboxItem, InboxKind},
};

use crate::support::{GateUnderTest, World, consume, eventually, key, reserve, user};

async fn hold(gate: &GateUnderTest, who: &str, ap: i64) -> Reservation {
    match gate.gate.reserve(reserve(who, ap, 60)).await.unwrap() {
        Decision::Allowed(reserved) => reserved.reservation,
        denied => panic!("{denied:?}"),
    }
}

/// Stores a commit of 3 AP in the inbox, as while Redis is unavailable.
async fn accept(gate: &GateUnderTest, reservation: &Reservation) {
    let item = InboxItem {
        id: reservation.hold,
        user: reservation.user.clone(),
        kind: InboxKind::Commit,
        reservation_id: gate.gate.reservation_id(reservation),
        ap: Ap::new(3),
        tokens: Tokens::ZERO,
        model: None,
        idempotency_key: None,
        accepted_at: gate.gate.now(),
    };
    gate.postgres.accept(&item).await.unwrap();
}

/// Runs the inbox worker until the inbox is empty.
async fn settle(world: &World, gate: &GateUnderTest) {
    eventually("the inbox is empty", async || {
        // An inbox worker that failed keeps its claim for a moment.
        let _ = gate.inbox_worker.apply_some().await;
        world.number("select count(*) from inbox where settled_at is null").await == 0
    })
    .await;
}

async fn away(gate: &GateUnderTest) {
    eventually("Redis counts as unavailable", async || {
        matches!(gate.gate.quota_and_holds(&user("nobody")).await, Err(GateError::RedisAway { .. }))
    })
    .await;
}

const COST_3: Commit = Commit { ap: Some(Ap::new(3)), tokens: Tokens::ZERO, model: None };

#[tokio::test]
async fn settlements_accepted_during_a_redis_outage_are_applied_once_afterwards() {
    let mut world = World::new().await;
    let (one, two) = (
        world.impatient_gate(Duration::from_millis(200)).await,
        world.impatient_gate(Duration::from_millis(200)).await,
    );
    let (charged, given_back) = (hold(&one, "alice", 5).await, hold(&one, "alice", 7).await);
    let (charged, given_back) = (one.gate.reservation_id(&charged), one.gate.reservation_id(&given_back));
    world.redis.pause();
    // The first attempts may have reached Redis although their answers were lost.
    for gate in [&one, &two, &one] {
        assert_eq!(gate.gate.commit(&charged, COST_3).await.unwrap(), Settled::Later);
        assert_eq!(gate.gate.release(&given_back).await.unwrap(), Settled::Later);
    }
    let other = Commit { ap: Some(Ap::new(4)), tokens: Tokens::ZERO, model: None };
    assert!(matches!(one.gate.commit(&charged, other).await, Err(GateError::Mismatch(_))));
    assert!(matches!(one.gate.release(&charged).await, Err(GateError::AlreadySettled(_))));
    assert_eq!(world.number("select count(*) from inbox").await, 2);
    assert!(one.postgres.inbox_waiting().await.unwrap().1.is_some());
    world.redis.resume();
    tokio::join!(settle(&world, &one), settle(&world, &two));
    assert!(one.postgres.inbox_waiting().await.unwrap().1.is_none());
    // Until its probe, a gate answers from Postgres, which has nothing yet.
    eventually("the gate uses Redis again", async || one.gate.quota_and_holds(&user("alice")).await.is_ok()).await;
    let quota = one.gate.quota(&user("alice")).await.unwrap();
    assert_eq!((quota.used.get(), quota.held.get()), (3, 0));
    eventually("the other gate uses Redis again", async || {
        two.gate.commit(&charged, COST_3).await.unwrap().now().is_some_and(|again| again.replayed)
    })
    .await;
    one.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 1);
}

#[tokio::test]
async fn an_accepted_commit_keeps_the_kinds_of_its_tokens() {
    let mut world = World::new().await;
    let gate = world.impatient_gate(Duration::from_millis(200)).await;
    let held = gate.gate.reservation_id(&hold(&gate, "alice", 5).await);
    world.redis.pause();
    let kinds = TokenKinds::new(7, 3, 4).unwrap().estimated();
    let commit = Commit { tokens: Tokens::of_kinds(kinds), ..COST_3 };
    assert_eq!(gate.gate.commit(&held, commit).await.unwrap(), Settled::Later);
    world.redis.resume();
    settle(&world, &gate).await;
    eventually("the gate uses Redis again", async || gate.gate.quota_and_holds(&user("alice")).await.is_ok()).await;
    gate.flush_and_verify().await;
    let kinds = "select (input_tokens * 10000 + cached_input_tokens * 100 + output_tokens)::bigint
                 from chat_usage_logs
                 where tokens_estimated";
    assert_eq!(world.number(kinds).await, 70_304);
}

#[tokio::test]
async fn a_commit_that_was_accepted_in_time_is_charged_however_late_redis_returns() {
    let mut world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.impatient_gate(Duration::from_millis(200)).await;
    let held = gate.gate.reservation_id(&hold(&gate, "alice", 5).await);
    let too_late = gate.gate.reservation_id(&hold(&gate, "alice", 5).await);
    world.redis.pause();
    assert_eq!(gate.gate.commit(&held, COST_3).await.unwrap(), Settled::Later);
    world.clock.set("2026-11-10T13:00:00Z".parse().unwrap());
    assert!(gate.gate.commit(&too_late, COST_3).await.is_err(), "its settle window is over");
    world.redis.resume();
    eventually("Redis answers", async || world.try_set_time("2026-11-10T13:00:00Z").await).await;
    settle(&world, &gate).await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 3);
    // Applied again, as after an inbox worker died before it marked the item: nothing changes.
    sqlx::query("update inbox set settled_at = null, claimed_until = null").execute(&world.pool).await.unwrap();
    settle(&world, &gate).await;
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 3);
}

#[tokio::test]
async fn a_commit_accepted_in_time_is_charged_in_full_although_its_ap_were_used_again() {
    let mut world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.impatient_gate(Duration::from_millis(200)).await;
    let all = Commit::default();
    let in_time = gate.gate.reservation_id(&hold(&gate, "alice", 60).await);
    let lost = gate.gate.reservation_id(&hold(&gate, "carol", 60).await);
    let late = gate.gate.reservation_id(&hold(&gate, "bob", 60).await);
    world.redis.pause();
    // From here on no commit is sent to Redis, which would execute it when it resumes.
    away(&gate).await;
    assert_eq!(gate.gate.commit(&in_time, all.clone()).await.unwrap(), Settled::Later);
    assert_eq!(gate.gate.commit(&lost, all.clone()).await.unwrap(), Settled::Later);
    // The holds live for a minute. This one has expired when its commit is accepted.
    world.clock.set("2026-11-10T12:05:00Z".parse().unwrap());
    assert_eq!(gate.gate.commit(&late, all).await.unwrap(), Settled::Later);
    world.redis.resume();
    eventually("Redis answers", async || world.try_set_time("2026-11-10T12:05:00Z").await).await;
    for user in ["alice", "bob"] {
        eventually("a message uses the whole quota", async || {
            matches!(gate.consume(user, 100).await, Ok(Decision::Allowed(_)))
        })
        .await;
    }
    gate.flush_and_verify().await;
    // Carol's partition loses its data before her commit is applied, and she uses her quota again, too.
    let mut connection = world.redis_connection().await;
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
    assert!(world.try_set_time("2026-11-10T12:05:00Z").await);
    eventually("a message uses the whole quota", async || {
        matches!(gate.consume("carol", 100).await, Ok(Decision::Allowed(_)))
    })
    .await;
    settle(&world, &gate).await;
    for (who, used) in [("alice", 160), ("carol", 160), ("bob", 100)] {
        let quota = gate.gate.quota(&user(who)).await.unwrap();
        assert_eq!((quota.used.get(), quota.remaining().get()), (used, 0), "{who}");
        assert!(matches!(gate.consume(who, 1).await.unwrap(), Decision::Denied(_)), "{who}");
    }
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(overage)::bigint from chat_usage_logs").await, 60, "only bob's is overage");
}

#[tokio::test]
async fn accepted_settlements_survive_the_loss_of_redis() {
    let mut world = World::new().await;
    let gate = world.impatient_gate(Duration::from_millis(200)).await;
    let held = gate.gate.reservation_id(&hold(&gate, "alice", 5).await);
    world.redis.pause();
    assert_eq!(gate.gate.commit(&held, COST_3).await.unwrap(), Settled::Later);
    world.redis.resume();
    eventually("Redis is wiped", async || {
        let mut connection = world.redis_connection().await;
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.is_ok()
    })
    .await;
    settle(&world, &gate).await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 3);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn on_redis_failure_allow_admits_messages_and_charges_them_later() {
    let mut world = World::new().await;
    let gate = world
        .gate_with(|tuning| {
            tuning.response_timeout = Duration::from_millis(200);
            tuning.on_redis_failure = OnRedisFailure::Allow;
        })
        .await;
    assert!(gate.charges("alice", 60).await);
    gate.flush_and_verify().await;
    world.redis.pause();
    away(&gate).await;
    let with_key = Consume { idempotency_key: Some(key("k")), ..consume("alice", 10) };
    for _ in 0..3 {
        let Decision::Allowed(charged) = gate.gate.consume(with_key.clone()).await.unwrap() else { panic!("denied") };
        assert!(charged.degraded);
    }
    let Decision::Allowed(reserved) = gate.gate.reserve(reserve("alice", 10, 60)).await.unwrap() else {
        panic!("denied")
    };
    assert!(reserved.degraded);
    let id = gate.gate.reservation_id(&reserved.reservation);
    assert_eq!(gate.gate.commit(&id, COST_3).await.unwrap(), Settled::Later);
    let Decision::Allowed(new) = gate.consume("new", 1).await.unwrap() else { panic!("denied") };
    assert!(new.degraded, "a new user");
    // Postgres has 60 + 10 + 3 AP: 28 more exceed the quota, 27 do not.
    assert!(matches!(gate.consume("alice", 28).await.unwrap(), Decision::Denied(_)));
    assert!(gate.charges("alice", 27).await);
    world.redis.resume();
    eventually("Redis is back", async || gate.gate.quota_and_holds(&user("alice")).await.is_ok()).await;
    // A request that is repeated before the inbox is applied is still the same message.
    let Decision::Allowed(again) = gate.gate.consume(with_key).await.unwrap() else { panic!("denied") };
    assert!(!again.degraded);
    settle(&world, &gate).await;
    gate.flush_and_verify().await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 100);
    assert_eq!(world.number("select count(*) from chat_usage_logs where user_uuid = 'alice'").await, 4);
}

#[tokio::test]
async fn decisions_without_redis_know_windows_and_grants() {
    let mut world = World::new().await;
    let gate = world
        .gate_with(|tuning| {
            tuning.response_timeout = Duration::from_millis(200);
            tuning.on_redis_failure = OnRedisFailure::Allow;
            let limits = LevelLimits::parse("5h ap 40, 5h requests 4", None).unwrap();
            tuning.levels = vec![(LevelName::parse("free").unwrap(), LevelTerms { quota: Ap::new(100), limits })];
        })
        .await;
    assert!(gate.charges("alice", 30).await);
    super::grants::give(&gate, "bob", 50, "order-1").await;
    assert!(gate.charges("bob", 30).await);
    gate.flush_and_verify().await;
    world.redis.pause();
    away(&gate).await;
    let quota = gate.gate.quota(&user("bob")).await.unwrap();
    assert_eq!((quota.source, quota.available().get()), (Source::Postgres, 60));
    let denies = async |who: &str, ap: i64| matches!(gate.consume(who, ap).await.unwrap(), Decision::Denied(_));
    assert!(denies("alice", 11).await && gate.charges("alice", 10).await && denies("alice", 1).await);
    // Ten AP of the window, and what is beyond from the grant.
    assert!(denies("bob", 61).await && gate.charges("bob", 25).await && gate.charges("bob", 35).await);
    assert!(denies("bob", 1).await);
    assert!(gate.charges("new", 1).await && gate.charges("new", 1).await && gate.charges("new", 1).await);
    assert!(gate.charges("new", 1).await && denies("new", 1).await, "four requests in five hours");
    world.redis.resume();
    settle(&world, &gate).await;
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(overage)::bigint from chat_usage_logs").await, 0);
    assert_eq!(world.number("select sum(charged)::bigint from grants").await, 50);
}

#[tokio::test]
async fn what_was_admitted_beyond_the_quota_is_overage() {
    let mut world = World::new().await;
    let gates = join_all((0..2).map(|_| {
        world.gate_with(|tuning| {
            tuning.response_timeout = Duration::from_millis(200);
            tuning.on_redis_failure = OnRedisFailure::Allow;
        })
    }))
    .await;
    // The 95 AP are not in Postgres yet, so it admits more than the quota.
    assert!(gates[0].charges("alice", 95).await);
    world.redis.pause();
    let keyed = |number: usize| Consume { idempotency_key: Some(key(&format!("k{number}"))), ..consume("alice", 4) };
    let mut events = Vec::new();
    for (number, gate) in gates.iter().enumerate() {
        away(gate).await;
        let Decision::Allowed(charged) = gate.gate.consume(keyed(number)).await.unwrap() else { panic!("denied") };
        events.push(charged.event);
    }
    world.redis.resume();
    settle(&world, &gates[1]).await;
    gates[0].flush_and_verify().await;
    let quota = gates[0].gate.quota(&user("alice")).await.unwrap();
    assert_eq!(quota.used.get(), 100, "never more than the quota");
    assert_eq!(world.number("select sum(overage)::bigint from chat_usage_logs").await, 3, "and the rest is recorded");
    // A repeat is recognized, whether the message was charged or recorded, and although there is AP again.
    super::levels::give(&gates[0], "alice", "basic").await;
    for (number, event) in events.into_iter().enumerate() {
        let Decision::Allowed(again) = gates[0].gate.consume(keyed(number)).await.unwrap() else { panic!("denied") };
        assert!(again.replayed && again.event == event, "message {number}");
    }
    gates[0].flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 3);
}

#[tokio::test]
async fn an_accepted_settlement_is_applied_after_the_secret_has_changed() {
    let mut world = World::new().await;
    let old = world.impatient_gate(Duration::from_millis(200)).await;
    let held = old.gate.reservation_id(&hold(&old, "alice", 5).await);
    world.redis.pause();
    assert_eq!(old.gate.commit(&held, COST_3).await.unwrap(), Settled::Later);
    world.redis.resume();
    let new = world.gate_with(|tuning| tuning.secret = [8; 32]).await;
    settle(&world, &new).await;
    assert_eq!(new.gate.quota(&user("alice")).await.unwrap().used.get(), 3);
    new.flush_and_verify().await;
}

#[tokio::test]
async fn an_item_that_cannot_be_settled_does_not_block_others_and_is_not_dropped() {
    let mut world = World::new().await;
    let gate = world.impatient_gate(Duration::from_millis(200)).await;
    let held = gate.gate.reservation_id(&hold(&gate, "alice", 5).await);
    world.redis.pause();
    assert_eq!(gate.gate.commit(&held, COST_3).await.unwrap(), Settled::Later);
    world.redis.resume();
    // More items than one step takes, all of them older.
    crate::support::execute(
        &world.database,
        "insert into inbox (id, user_uuid, kind, reservation_id, ap, tokens, accepted_at)
         select gen_random_uuid(), 'bob', 'commit', 'spoilt', 1, 0, '2026-01-01' from generate_series(1, 1200)",
    )
    .await;
    eventually("the commit is applied", async || {
        let _ = gate.inbox_worker.apply_some().await;
        world.number("select count(*) from inbox where settled_at is not null").await == 1
    })
    .await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 3);
    assert_eq!(world.number("select count(*) from inbox where settled_at is null").await, 1200);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn an_inbox_worker_whose_clock_is_ahead_does_not_block_its_items() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let reservation = hold(&gate, "alice", 5).await;
    accept(&gate, &reservation).await;
    let (claim, ahead) = (uuid::Uuid::new_v4(), gate.gate.now() + chrono::TimeDelta::days(31));
    let claimed = gate.postgres.claim_inbox(claim, ahead, ahead + chrono::TimeDelta::seconds(5), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    gate.postgres.give_up_claim(claim, ahead).await.unwrap();
    assert_eq!(gate.inbox_worker.apply_some().await.unwrap(), 1);
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 3);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_charged_once_however_late_it_is_settled() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let reservation = hold(&gate, "alice", 5).await;
    // The answer is lost, so Postgres accepts the commit. Redis is unavailable for half an hour.
    gate.gate.commit(&gate.gate.reservation_id(&reservation), COST_3).await.unwrap();
    accept(&gate, &reservation).await;
    world.set_time("2026-11-10T12:30:00Z").await;
    let mut redis = world.redis_connection().await;
    let settlements: Vec<Vec<u8>> = redis::cmd("KEYS").arg("qg:*:s:*").query_async(&mut redis).await.unwrap();
    let forgotten: usize = redis::cmd("DEL").arg(settlements).query_async(&mut redis).await.unwrap();
    assert_eq!(forgotten, 1, "the settlement has expired by then");
    assert!(gate.inbox_worker.apply_some().await.is_err(), "the charge is still in the journal and not yet in the log");
    gate.flusher.flush_all().await.unwrap();
    settle(&world, &gate).await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 3);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 1);
}
