//! The sweep: deletes flushed records of inactive users from Redis, and releases expired holds.

use chrono::TimeDelta;
use quota_gate::domain::decision::Decision;

use crate::support::{World, eventually, reserve, user};

#[tokio::test]
async fn a_flushed_record_is_deleted_after_two_periods_without_use() {
    let world = World::at("2026-09-15T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    assert!(gate.charges("alice", 7).await);
    gate.flush_and_verify().await;
    let record = async || gate.redis.record(partition, &user("alice")).await.unwrap();
    // October, the next period, is over only at the second time.
    for (now, deleted) in [("2026-10-31T23:00:00Z", 0), ("2026-11-01T01:00:00Z", 1)] {
        world.clock.set(now.parse().unwrap());
        assert_eq!(gate.sweeper.sweep().await.unwrap().deleted, deleted, "{now}");
        assert_eq!(record().await.is_none(), deleted == 1, "{now}");
    }
    world.set_time("2026-11-01T01:00:00Z").await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().total_used, 7);
}

#[tokio::test]
async fn a_record_with_unflushed_charges_stays() {
    let world = World::new().await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    assert!(gate.charges("alice", 7).await);
    let key = [format!("qg:{{{partition}}}:u:alice").into_bytes()];
    let later = world.clock.now() + TimeDelta::hours(1);
    let sweep = async || {
        let watermark = gate.postgres.watermark(partition.number()).await.unwrap();
        let open = (watermark.generation, watermark.position.unwrap().id);
        gate.redis.sweep(partition, open, later, &key).await.unwrap().unwrap()
    };
    assert_eq!(sweep().await.deleted, 0);
    gate.flush_and_verify().await;
    // Redis compares milliseconds: changes of the current one may not be flushed yet.
    eventually("the flushed record is deleted", async || sweep().await.deleted == 1).await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 7);
}

#[tokio::test]
async fn a_sweep_of_an_older_generation_does_nothing() {
    let world = World::new().await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    assert!(gate.charges("alice", 7).await);
    gate.flush_and_verify().await;
    let watermark = gate.postgres.watermark(partition.number()).await.unwrap();
    gate.gate.leave_generation(partition, watermark.generation).await.unwrap();
    let key = [format!("qg:{{{partition}}}:u:alice").into_bytes()];
    let open = (watermark.generation, watermark.position.unwrap().id);
    let later = world.clock.now() + TimeDelta::hours(1);
    assert_eq!(gate.redis.sweep(partition, open, later, &key).await.unwrap(), None);
}

#[tokio::test]
async fn an_expired_hold_of_an_inactive_user_is_released() {
    let world = World::new().await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    let held = gate.gate.reserve(reserve("alice", 10, 1)).await.unwrap();
    assert!(matches!(held, Decision::Allowed(_)));
    let version = gate.redis.record(partition, &user("alice")).await.unwrap().unwrap().version;
    eventually("the hold is swept", async || gate.sweeper.sweep().await.unwrap().freed == 1).await;
    let record = gate.redis.record(partition, &user("alice")).await.unwrap().unwrap();
    assert_eq!((record.held.get(), record.holds.len()), (0, 0));
    assert!(record.version > version);
    gate.flush_and_verify().await;
}
