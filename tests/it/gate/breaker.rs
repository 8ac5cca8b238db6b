//! Redis does not answer: soon no caller waits for it, and one probe detects when it is back.

use std::time::Duration;

use quota_gate::gate::GateError;
use tokio::time::Instant;

use crate::support::{World, eventually};

#[tokio::test]
async fn no_caller_waits_once_redis_is_known_to_be_unavailable() {
    let mut world = World::new().await;
    let gate = world.impatient_gate(Duration::from_millis(100)).await;
    assert!(gate.charges("alice", 1).await);
    world.redis.pause();
    let mut lost = 0;
    eventually("the breaker opens", async || match gate.consume("alice", 1).await {
        Err(GateError::Indeterminate { .. }) => {
            lost += 1;
            false
        }
        Err(GateError::RedisAway { .. }) => true,
        other => panic!("{other:?}"),
    })
    .await;
    // Callers that waited lost their answers. Refusals now need no Redis, so a thousand of them are immediate.
    let (started, refused) = (Instant::now(), 1_000);
    for _ in 0..refused {
        assert!(matches!(gate.consume("alice", 1).await, Err(GateError::RedisAway { .. })));
    }
    assert!(started.elapsed() < Duration::from_millis(100) * refused, "refused calls do not wait for an answer");
    world.redis.resume();
    eventually("the gate answers again", async || gate.consume("alice", 1).await.is_ok()).await;
    gate.flush_and_verify().await;
    let used = world.number("select sum(ap_used)::bigint from chat_usage_logs").await;
    assert!((2..=2 + lost).contains(&used), "acknowledged 2, in doubt {lost}, charged {used}");
}

#[tokio::test]
async fn a_redis_that_was_killed_is_used_again_after_its_restart() {
    let mut world = World::new().await;
    let gate = world.impatient_gate(Duration::from_millis(500)).await;
    assert!(gate.charges("alice", 1).await);
    world.redis.kill().await;
    eventually("the breaker opens", async || {
        let first = gate.consume("alice", 1).await;
        let started = Instant::now();
        matches!(gate.consume("alice", 1).await, Err(GateError::RedisAway { reason }) if reason.contains("probed"))
            && first.is_err()
            && started.elapsed() < Duration::from_millis(500)
    })
    .await;
    world.redis.restart().await.unwrap();
    eventually("the gate answers again", async || gate.consume("alice", 1).await.is_ok()).await;
    gate.flush_and_verify().await;
}
