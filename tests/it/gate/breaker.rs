//! Redis or Postgres stands still: after a moment nobody waits any more, and one probe finds out when it is back.

use std::time::Duration;

use quota_gate::gate::GateError;
use tokio::time::Instant;

use crate::support::{World, eventually};

#[tokio::test]
async fn once_redis_is_known_to_be_away_nobody_waits_for_it() {
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
    // Whoever waited has lost the answer; from now on the refusal needs no Redis, so a thousand of them come at once.
    let (started, refused) = (Instant::now(), 1_000);
    for _ in 0..refused {
        assert!(matches!(gate.consume("alice", 1).await, Err(GateError::RedisAway { .. })));
    }
    assert!(started.elapsed() < Duration::from_millis(100) * refused, "they did not wait for an answer each");
    world.redis.resume();
    eventually("the gate answers again", async || gate.consume("alice", 1).await.is_ok()).await;
    gate.flush_and_verify().await;
    let used = world.number("select sum(ap_used)::bigint from chat_usage_logs").await;
    assert!((2..=2 + lost).contains(&used), "acknowledged 2, in doubt {lost}, charged {used}");
}

#[tokio::test]
async fn a_redis_that_is_gone_and_returns_is_used_again_without_a_word() {
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
