//! Partitions of the usage log, created and dropped while a long transaction, such as a backup, reads the log.

use chrono::NaiveDate;
use quota_gate::jobs::{
    job::{Job, Next},
    log_partitions::PartitionMaker,
    resetter::Trigger,
};
use sqlx::{Connection, Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::support::{GateUnderTest, World, eventually, repeat};

/// A transaction that has read the whole log and is still open.
async fn reader(world: &World) -> PgConnection {
    let mut reader = PgConnection::connect(&world.database).await.unwrap();
    reader.execute("begin; select count(*) from chat_usage_logs").await.unwrap();
    reader
}

/// Waits until a statement of this test's database waits for a lock.
async fn until_blocked(world: &World) {
    let blocked = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock' and wait_event = 'relation'";
    eventually("a statement waits for a lock", async || world.number(blocked).await > 0).await;
}

async fn flushes_new_users(gate: &GateUnderTest, name: &str) {
    for number in 0..5 {
        // The user is loaded from Postgres, and the load reads the log.
        assert!(gate.charges(&format!("{name}-{number}"), 1).await);
    }
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn new_users_are_served_while_a_partition_is_due_behind_a_long_reader() {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    flushes_new_users(&gate, "before").await;
    let reader = reader(&world).await;
    let cancelled = CancellationToken::new();
    let mut maker = PartitionMaker::new(&gate.gate);
    let making = tokio::spawn(async move { maker.step().await.unwrap() });
    until_blocked(&world).await;
    flushes_new_users(&gate, "during").await;
    assert!(matches!(making.await.unwrap(), Next::After(_)), "the blocked months are tried again");

    // The resetter reports no error: rows have a place until the partition is created.
    let report = gate.resetter.run(Trigger::Schedule).await.unwrap();
    assert_eq!(report.failed_count, 0);
    assert_eq!(world.number("select count(*) from reset_runs where error is not null").await, 0);

    let making = tokio::spawn(repeat(PartitionMaker::new(&gate.gate), &cancelled));
    drop(reader);
    let months = "select count(*) from pg_inherits where inhparent = 'chat_usage_logs'::regclass";
    eventually("the partitions are created", async || {
        PartitionMaker::new(&gate.gate).step().await.unwrap();
        world.number(months).await == 5
    })
    .await;
    assert_eq!(gate.postgres.rows_in_default_partition().await.unwrap(), 0);
    flushes_new_users(&gate, "after").await;
    cancelled.cancel();
    making.await.unwrap();
}

#[tokio::test]
async fn nothing_is_locked_if_the_partitions_exist() {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert_eq!(gate.postgres.ensure_log_partitions(world.clock.now(), 3).await.unwrap().made, 4);
    let _reader = reader(&world).await;
    let again = gate.postgres.ensure_log_partitions(world.clock.now(), 3).await.unwrap();
    assert_eq!((again.made, again.blocked), (0, vec![]));
    let more = gate.postgres.ensure_log_partitions(world.clock.now(), 4).await.unwrap();
    assert_eq!(more.blocked, vec![NaiveDate::from_ymd_opt(2027, 3, 1).unwrap()]);
}

#[tokio::test]
async fn new_users_are_served_while_retention_waits_for_a_long_reader() {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    gate.postgres.ensure_log_partitions("2024-05-20T12:00:00Z".parse().unwrap(), 0).await.unwrap();
    gate.postgres.ensure_log_partitions(world.clock.now(), 3).await.unwrap();
    let old = gate.postgres.log_partitions_before(NaiveDate::from_ymd_opt(2025, 1, 1).unwrap()).await.unwrap();
    let reader = reader(&world).await;
    let store = gate.postgres.clone();
    let dropping = tokio::spawn(async move { store.drop_log_partition(&old[0]).await });
    until_blocked(&world).await;
    flushes_new_users(&gate, "during").await;
    drop(reader);
    dropping.await.unwrap().unwrap();
}
