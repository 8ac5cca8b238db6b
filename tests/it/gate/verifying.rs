//! Verify and repair: differences are found, reported, repaired and recorded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quota_gate::{
    audit::AuditError,
    store::postgres::{Postgres, PostgresOptions},
};

use crate::support::{World, eventually, execute, repeat, user};

#[tokio::test]
async fn live_traffic_is_not_drift() {
    let world = World::new().await;
    let gate = world.gate().await;
    let cancelled = tokio_util::sync::CancellationToken::new();
    let flushing = tokio::spawn(repeat(gate.flusher.clone(), &cancelled));
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = {
        let (gate, stop) = (gate.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let who = format!("user-{}", sent % 30);
                gate.consume(&who, 1).await.unwrap();
                sent += 1;
            }
            sent
        })
    };
    for _ in 0..20 {
        let verdict = gate.verifier.verify().await.unwrap();
        assert!(verdict.agrees(), "{verdict:#?}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(traffic.await.unwrap() > 100, "there was traffic");
    cancelled.cancel();
    flushing.await.unwrap();
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn charges_missing_in_postgres_become_adjustments() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await && gate.charges("bob", 5).await);
    gate.flush_and_verify().await;
    // As after a restore of Postgres from an older copy: the row and the log are behind.
    execute(&world.database, "delete from chat_usage_logs where user_uuid = 'alice'").await;
    let back = "update chat_quotas set monthly_used = 0, total_used = 0 where user_uuid = 'alice'";
    execute(&world.database, back).await;
    let verdict = gate.verifier.verify().await.unwrap();
    assert!(verdict.drift.is_empty() && verdict.differences.len() == 1, "{verdict:#?}");
    assert_eq!((verdict.differences[0].used, verdict.differences[0].total_used), ((30, 0), (30, 0)));
    assert!(verdict.differences[0].reason().contains("older copy"));
    let repaired = gate.repairer.repair().await.unwrap();
    assert_eq!((repaired.adjustments, repaired.reopened, repaired.left), (1, 0, 0));
    gate.flush_and_verify().await;
    let adjusted = "select ap_used::bigint from chat_usage_logs where kind = 'adjustment' and user_uuid = 'alice'";
    assert_eq!(world.number(adjusted).await, 30);
}

/// Tables that a restore replaces: rows and watermarks.
const RESTORED: [&str; 5] = ["chat_quotas", "chat_quota_months", "chat_usage_logs", "usage_days", "flush_watermarks"];

async fn back_up(world: &World) {
    for table in RESTORED {
        execute(&world.database, &format!("create table backup_of_{table} as table {table}")).await;
    }
}

async fn restore(world: &World) {
    for table in RESTORED {
        execute(&world.database, &format!("delete from {table}")).await;
        execute(&world.database, &format!("insert into {table} select * from backup_of_{table}")).await;
    }
}

/// A user id that is a UUID: its record key contains raw bytes.
const NEW: &str = "018f7c1e-5c7e-7f54-9a3e-0123456789ab";

#[tokio::test]
async fn charges_that_a_restored_postgres_lost_are_found_in_records_unused_since() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 10).await && gate.charges("bob", 5).await);
    gate.flush_and_verify().await;
    back_up(&world).await;
    assert!(gate.charges("alice", 60).await && gate.charges(NEW, 20).await);
    gate.flush_and_verify().await;
    // The stream keeps only the entries of the last two flushes.
    for _ in 0..2 {
        assert!(gate.charges("alice", 1).await && gate.charges(NEW, 1).await);
        gate.flush_and_verify().await;
    }
    restore(&world).await;
    gate.flusher.flush_all().await.unwrap();
    let partition = gate.gate.partitions().of(&user("alice"));
    assert_eq!(gate.postgres.watermark(partition.number()).await.unwrap().generation, 2, "the anchor was missing");

    let verdict = gate.verifier.verify().await.unwrap();
    let mut found = verdict.differences.clone();
    found.sort_by_key(|difference| difference.user.as_str().to_owned());
    let [new, alice] = found.as_slice() else { panic!("{verdict:#?}") };
    assert_eq!((alice.used, alice.total_used), ((72, 12), (72, 12)));
    // A user who is newer than the backup has no row.
    assert_eq!((new.user.as_str(), new.used.0, new.total_used.0), (NEW, 22, 22));
    assert!(verdict.drift.is_empty() && found.iter().all(|difference| difference.reason().contains("older copy")));
    let repaired = gate.repairer.repair().await.unwrap();
    assert_eq!((repaired.adjustments, repaired.reopened, repaired.left), (2, 0, 0));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select monthly_used from chat_quotas where user_uuid = 'alice'").await, 72);
    assert!(!gate.charges("alice", 29).await && gate.charges("alice", 28).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn charges_of_an_unreadable_entry_are_replayed_and_never_adjusted() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await);
    // The format of the entry is wrong.
    let stream = format!("qg:{{{}}}:ev:1", gate.gate.partitions().of(&user("alice")));
    let mut connection = world.redis_connection().await;
    let newest: Vec<(String, Vec<Vec<u8>>)> = redis::cmd("XREVRANGE")
        .arg(&stream)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query_async(&mut connection)
        .await
        .unwrap();
    let (id, fields) = &newest[0];
    let (format, mut payload) = (fields[1][0], fields[1].clone());
    payload[0] = 0;
    let _: u64 = redis::cmd("XDEL").arg(&stream).arg(id).query_async(&mut connection).await.unwrap();
    let _: String =
        redis::cmd("XADD").arg(&stream).arg("*").arg("e").arg(payload).query_async(&mut connection).await.unwrap();
    // The entry is first in the stream, then a dead letter.
    for _ in 0..2 {
        let verdict = gate.verifier.verify().await.unwrap();
        assert!(verdict.differences[0].reason().contains("replay the dead letters first"), "{verdict:#?}");
        let repaired = gate.repairer.repair().await.unwrap();
        assert_eq!((repaired.adjustments, repaired.left), (0, 1));
        gate.flusher.flush_all().await.unwrap();
    }
    execute(&world.database, &format!("update dead_letters set payload = set_byte(payload, 0, {format})")).await;
    gate.replayer.replay(&[]).await.unwrap();
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 30);
}

#[tokio::test]
async fn an_older_generations_record_behind_its_row_is_not_a_difference() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 10).await);
    gate.flush_and_verify().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    gate.gate.leave_generation(partition, 1).await.unwrap();
    // As after a restore of an older copy of Redis: the record has only some of Postgres' charges.
    execute(&world.database, "update chat_quotas set monthly_used = 30, total_used = 30").await;
    execute(&world.database, "update chat_usage_logs set ap_used = 30").await;
    execute(&world.database, "update usage_days set ap = 30").await;
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_record_that_misses_charges_is_reloaded_and_the_charges_stay() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await);
    let partition = gate.gate.partitions().of(&user("alice"));
    let key = format!("qg:{{{partition}}}:u:alice");
    let mut connection = world.redis_connection().await;
    let older: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
    assert!(gate.charges("alice", 60).await);
    gate.flush_and_verify().await;
    let _: () = redis::cmd("SET").arg(&key).arg(older).query_async(&mut connection).await.unwrap();
    let verdict = gate.verifier.verify().await.unwrap();
    assert_eq!(verdict.differences[0].used, (30, 90));
    assert!(verdict.differences[0].reason().contains("by hand"));
    assert_eq!(gate.repairer.repair().await.unwrap().reopened, 1);
    assert!(!gate.charges("alice", 11).await && gate.charges("alice", 10).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn repair_makes_totals_and_log_agree_in_either_direction() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await && gate.charges("bob", 5).await);
    gate.flush_and_verify().await;
    execute(&world.database, "update chat_quotas set monthly_used = 20, total_used = 20 where user_uuid = 'alice'")
        .await;
    execute(&world.database, "delete from chat_usage_logs where user_uuid = 'bob'").await;
    let verdict = gate.verifier.verify().await.unwrap();
    assert_eq!(verdict.drift.len(), 4, "month and total of each user: {verdict:#?}");
    let repaired = gate.repairer.repair().await.unwrap();
    assert_eq!((repaired.totals, repaired.adjustments), (1, 1));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select monthly_used from chat_quotas where user_uuid = 'alice'").await, 30);
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs where user_uuid = 'bob'").await, 5);
}

#[tokio::test]
async fn repair_restores_a_missing_period_from_the_log_and_keeps_a_correct_total() {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    for (who, ap) in [("alice", 30), ("bob", 20), ("carol", 10)] {
        assert!(gate.charges(who, ap).await);
    }
    world.set_time("2026-12-01T00:00:00Z").await;
    for (who, ap) in [("alice", 3), ("bob", 2), ("carol", 1)] {
        assert!(gate.charges(who, ap).await);
    }
    gate.flush_and_verify().await;
    // Alice's November is missing, bob's row is still in November, and only the total of carol is too low.
    execute(&world.database, "delete from chat_quota_months where user_uuid in ('alice', 'bob')").await;
    let back = "update chat_quotas set period = 202611, monthly_used = 20 where user_uuid = 'bob'";
    execute(&world.database, back).await;
    execute(&world.database, "update chat_quotas set total_used = 4 where user_uuid = 'carol'").await;
    let repaired = gate.repairer.repair().await.unwrap();
    assert_eq!((repaired.totals, repaired.adjustments, repaired.left), (3, 0, 0));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select used from chat_quota_months where user_uuid = 'alice'").await, 30);
    assert_eq!(world.number("select monthly_used from chat_quotas where user_uuid = 'bob'").await, 2);
    assert_eq!(world.number("select sum(total_used)::bigint from chat_quotas").await, 66);
}

#[tokio::test]
async fn only_one_repair_runs_at_a_time() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await);
    gate.flush_and_verify().await;
    execute(&world.database, "update chat_quotas set monthly_used = 20, total_used = 20").await;
    let other = gate.postgres.try_lock_repairs().await.unwrap().expect("no other repair runs");
    assert!(matches!(gate.repairer.repair().await, Err(AuditError::Repairing)));
    drop(other);
    eventually("the other repair has ended", async || gate.repairer.repair().await.is_ok()).await;
    gate.flush_and_verify().await;
    // Each repair releases the lock when it ends.
    eventually("another repair may run", async || gate.repairer.repair().await.is_ok()).await;
}

#[tokio::test]
async fn an_audit_of_whole_tables_may_exceed_the_statement_timeout() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await);
    gate.flush_and_verify().await;
    let hurried = Postgres::new(&PostgresOptions {
        url: world.database.clone(),
        connections_max: 3,
        acquire_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_millis(200),
    })
    .unwrap();
    // A lock makes reading the log take as long as the test needs.
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("lock table chat_usage_logs in access exclusive mode").execute(&mut *holder).await.unwrap();
    let audits = tokio::spawn(async move {
        let (drift, usage_drift, repaired) =
            tokio::join!(hurried.drift(), hurried.usage_drift(), hurried.repair_usage());
        (drift.unwrap(), usage_drift.unwrap(), repaired.unwrap())
    });
    let late = "select count(*) from pg_stat_activity where datname = current_database() \
                and wait_event_type = 'Lock' and clock_timestamp() - query_start > interval '400 ms'";
    eventually("all three exceed the statement timeout", async || world.number(late).await == 3).await;
    holder.rollback().await.unwrap();
    assert_eq!(audits.await.unwrap(), (vec![], vec![], 0));
}
