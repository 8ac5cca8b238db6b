//! The rollout: which messages the gate decides, and which ones pass.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::join_all;
use quota_gate::{
    domain::{
        clock::Clock,
        decision::{Decision, Passed},
        rollout::{Mode, Percentage, Rollout},
    },
    gate::Commit,
    jobs::rollout_sync::RolloutSync,
};

use crate::support::{GateUnderTest, World, key, migrated_copy, postgres, reserve, user};

fn mode(mode: Mode) -> Rollout {
    Rollout { mode, ..Rollout::default() }
}

async fn used(gate: &GateUnderTest, who: &str) -> u32 {
    gate.gate.quota(&user(who)).await.unwrap().used.get()
}

#[tokio::test]
async fn off_calls_no_store_and_charges_nothing() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    gate.gate.set_rollout(mode(Mode::Off));
    world.redis.kill().await;
    assert!(matches!(gate.consume("alice", 1000).await, Ok(Decision::Passed(Passed::Out))));
    assert!(matches!(gate.gate.reserve(reserve("alice", 1000, 60)).await, Ok(Decision::Passed(Passed::Out))));
    assert_eq!(gate.gate.rollout_counts().out, 2);
}

#[tokio::test]
async fn shadow_charges_and_passes_what_it_would_deny_or_cannot_decide() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    gate.gate.set_rollout(mode(Mode::Shadow));
    assert!(matches!(gate.consume("alice", 60).await, Ok(Decision::Allowed(_))));
    let Ok(Decision::Passed(Passed::WouldBeDenied(denied))) = gate.consume("alice", 60).await else { panic!() };
    assert_eq!((denied.required.get(), denied.quota.remaining().get()), (60, 40));
    assert_eq!(used(&gate, "alice").await, 60);
    // An invalid request is refused in every mode.
    let with_key =
        |ap| quota_gate::gate::Consume { idempotency_key: Some(key("k")), ..crate::support::consume("bob", ap) };
    gate.gate.consume(with_key(1)).await.unwrap();
    assert!(gate.gate.consume(with_key(2)).await.is_err());
    world.redis.kill().await;
    assert!(matches!(gate.consume("alice", 1).await, Ok(Decision::Passed(Passed::Undecided))));
    let counts = gate.gate.rollout_counts();
    assert_eq!((counts.shadow_denied, counts.shadow_undecided, counts.out), (1, 1, 0));
}

#[tokio::test]
async fn only_messages_of_users_in_the_rollout_are_decided() {
    let world = World::new().await;
    let gate = world.gate().await;
    let none = Percentage::try_from(0.0).unwrap();
    gate.gate.set_rollout(Rollout { percentage: none, always_in: [user("alice")].into(), ..Rollout::default() });
    assert!(matches!(gate.consume("alice", 101).await, Ok(Decision::Denied(_))));
    assert!(matches!(gate.consume("bob", 101).await, Ok(Decision::Passed(Passed::Out))));
}

#[tokio::test]
async fn switching_under_load_loses_no_charge_and_leaves_no_hold() {
    let world = World::new().await;
    let gate = world.gate().await;
    let charged = AtomicU64::new(0);
    let modes = [Mode::Off, Mode::Enforce, Mode::Shadow];
    // Each message is sent right after a switch, while the messages and holds of fifteen others are in flight.
    let caller = async |number: usize| {
        let who = format!("user-{}", number % 5);
        for turn in 0..60 {
            gate.gate.set_rollout(mode(modes[(number + turn) % 3]));
            if turn % 2 == 0 {
                if let Ok(Decision::Allowed(_)) = gate.consume(&who, 1).await {
                    charged.fetch_add(1, Ordering::SeqCst);
                }
            } else if let Ok(Decision::Allowed(held)) = gate.gate.reserve(reserve(&who, 2, 60)).await {
                // The commit succeeds in whatever mode is set by now.
                let id = gate.gate.reservation_id(&held.reservation);
                let committed = gate.gate.commit(&id, Commit::default()).await.unwrap().now().unwrap();
                charged.fetch_add(committed.charged.get().into(), Ordering::SeqCst);
            }
        }
    };
    join_all((0..16).map(caller)).await;
    let mut in_redis = 0;
    for number in 0..5 {
        let quota = gate.gate.quota(&user(&format!("user-{number}"))).await.unwrap();
        assert_eq!(quota.held.get(), 0);
        in_redis += u64::from(quota.used.get());
    }
    assert_eq!(in_redis, charged.load(Ordering::SeqCst));
    gate.flush_and_verify().await;
    let log = world.number("select sum(ap_used)::bigint from chat_usage_logs").await;
    assert_eq!(u64::try_from(log).unwrap(), in_redis);
    let counts = gate.gate.rollout_counts();
    assert!(counts.out > 0 && counts.shadow_allowed > 0, "every mode was used: {counts:?}");
}

#[tokio::test]
async fn a_changed_file_turns_the_gate_off_while_postgres_is_unavailable() {
    let server = postgres().await;
    let database = migrated_copy(&server).await;
    let world = World::on(database, Clock::machine(), false, "UTC").await;
    let gate = world.gate().await;
    let file = Arc::new(Mutex::new(Rollout::default()));
    let reading = Arc::clone(&file);
    let read = Arc::new(move || Ok(reading.lock().unwrap().clone()));
    let mut rollout_sync = RolloutSync::new(&gate.gate, read);
    rollout_sync.sync().await.unwrap();
    drop(server);
    *file.lock().unwrap() = mode(Mode::Off);
    assert!(rollout_sync.sync().await.is_err(), "the change cannot be stored");
    assert_eq!(gate.gate.rollout().mode, Mode::Off);
}
