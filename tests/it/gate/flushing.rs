//! From the journal to the rows: each charge exactly once, whatever is killed in between.

use std::time::Duration;

use futures_util::future::join_all;
use quota_gate::{
    domain::{
        clock::Clock,
        journal::{Entry, Position, StreamId},
    },
    jobs::flusher::PartitionFlush,
    store::postgres::{Flush, FlushOutcome},
};

use quota_gate::audit::replay::Replayed;

use crate::support::{GateUnderTest, World, eventually, execute, migrated_copy, postgres, repeat, user};

/// Counts the flushes that wait for a row.
const WAITING: &str = "select count(*) from pg_stat_activity where datname = current_database() \
        and wait_event_type = 'Lock' and query like 'update chat_quotas%'";

async fn charge_many(gate: &GateUnderTest, users: usize, each: usize) {
    let names: Vec<String> = (0..users * each).map(|n| format!("user-{}", n % users)).collect();
    assert!(join_all(names.iter().map(|name| gate.charges(name, 1))).await.into_iter().all(|charged| charged));
}

/// The batch that a flusher would flush next for alice's partition.
async fn next_batch(gate: &GateUnderTest) -> (u16, u32, Position, Vec<Entry>) {
    let partition = gate.gate.partitions().of(&user("alice"));
    let watermark = gate.postgres.watermark(partition.number()).await.unwrap();
    let from = watermark.position.unwrap();
    let entries = gate.redis.read_stream(partition, watermark.generation, from.id, 1000).await.unwrap();
    (partition.number(), watermark.generation, from, entries[1..].to_vec())
}

async fn flush_without_trim(gate: &GateUnderTest, batch: &(u16, u32, Position, Vec<Entry>)) -> FlushOutcome {
    let levels = gate.postgres.all_levels().await.unwrap();
    let (partition, generation, from, entries) = batch;
    let now = Clock::machine().now();
    let flush = Flush {
        partition: *partition,
        generation: *generation,
        from: *from,
        entries,
        levels: &levels,
        calendar: gate.gate.calendar(),
        now,
    };
    gate.postgres.flush(flush).await.unwrap()
}

#[tokio::test]
async fn every_acknowledged_charge_is_one_row() {
    let world = World::new().await;
    let gate = world.gate().await;
    charge_many(&gate, 40, 20).await;
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 800);
    assert_eq!(world.number("select count(distinct uuid) from chat_usage_logs").await, 800);
    assert_eq!(world.number("select min(monthly_used) from chat_quotas").await, 20);
}

#[tokio::test]
async fn a_flusher_killed_between_commit_and_trim_counts_nothing_twice() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await);
    let batch = next_batch(&gate).await;
    assert!(matches!(flush_without_trim(&gate, &batch).await, FlushOutcome::Committed(report) if report.rows == 1));
    // The same batch again, as by a flusher that did not receive the answer to its commit.
    assert_eq!(flush_without_trim(&gate, &batch).await, FlushOutcome::Superseded);
    assert!(gate.charges("alice", 2).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 2);
}

#[tokio::test]
async fn a_flusher_killed_between_copy_and_commit_leaves_nothing_behind() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await);
    // The user's row is locked: the flush waits after its COPY and before its commit, and is killed there.
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("select from chat_quotas where user_uuid = 'alice' for update").execute(&mut *holder).await.unwrap();
    let batch = next_batch(&gate).await;
    let levels = gate.postgres.all_levels().await.unwrap();
    let (partition, generation, from, entries) = batch.clone();
    let killed = tokio::spawn({
        let (postgres, calendar) = (gate.postgres.clone(), gate.gate.calendar());
        async move {
            let now = Clock::machine().now();
            postgres
                .flush(Flush { partition, generation, from, entries: &entries, levels: &levels, calendar, now })
                .await
        }
    });
    eventually("the flush waits for the row", async || world.number(WAITING).await == 1).await;
    world
        .number(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
             and wait_event_type = 'Lock' and query like 'update chat_quotas%'",
        )
        .await;
    assert!(killed.await.unwrap().is_err());
    holder.rollback().await.unwrap();
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 0);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 5);
}

#[tokio::test]
async fn a_row_that_rolls_while_a_flush_waits_for_it_misses_no_charge() {
    let world = World::at("2026-11-30T23:59:59Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await);
    world.set_time("2026-12-01T00:00:00Z").await;
    assert!(gate.charges("alice", 3).await);
    // The flush has a charge of each month. It finds the row in November, but the reset is faster.
    let mut resetter = world.pool.begin().await.unwrap();
    sqlx::query("select roll_chat_quotas(array['alice'], 202612, '2027-01-01T00:00:00Z', '2026-12-01T00:00:00Z')")
        .execute(&mut *resetter)
        .await
        .unwrap();
    let flushing = tokio::spawn({
        let flusher = gate.flusher.clone();
        async move { flusher.flush_all().await.unwrap() }
    });
    eventually("the flush waits for the row", async || world.number(WAITING).await == 1).await;
    resetter.commit().await.unwrap();
    flushing.await.unwrap();
    gate.flush_and_verify().await;
    assert_eq!(world.number("select monthly_used from chat_quotas where period = 202612").await, 3);
    assert_eq!(world.number("select used from chat_quota_months where period = 202611").await, 5);
    assert_eq!(world.number("select total_used from chat_quotas").await, 8);
}

#[tokio::test]
async fn concurrent_flushers_count_each_entry_once() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await, world.gate().await];
    let charging = charge_many(&gates[0], 20, 40);
    let fighting = join_all(gates.iter().map(async |gate| {
        for _ in 0..15 {
            gate.flusher.flush_all().await.unwrap();
        }
    }));
    tokio::join!(charging, fighting);
    gates[0].flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 800);
    // No flusher took the conflict for a loss.
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 1);
}

#[tokio::test]
async fn no_charge_is_lost_when_postgres_is_killed_and_restarted() {
    let mut server = postgres().await;
    let world = World::on(migrated_copy(&server).await, Clock::machine(), false, "UTC").await;
    let gate = world.gate().await;
    charge_many(&gate, 20, 5).await;
    let cancelled = tokio_util::sync::CancellationToken::new();
    let flushing = tokio::spawn(repeat(gate.flusher.clone(), &cancelled));
    // Users in Redis are served as usual while Postgres is unavailable.
    let bouncing = async {
        server.kill().await;
        server.restart().await.unwrap();
    };
    tokio::join!(bouncing, charge_many(&gate, 20, 50));
    eventually("the flusher has caught up", async || {
        gate.verifier.verify().await.is_ok_and(|verdict| verdict.unflushed == 0)
    })
    .await;
    cancelled.cancel();
    flushing.await.unwrap();
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 1100);
}

#[tokio::test]
async fn refused_rows_become_dead_letters_and_all_others_are_counted() {
    let world = World::new().await;
    let gate = world.gate().await;
    execute(&world.database, "alter table chat_usage_logs add constraint no_mallory check (user_uuid <> 'mallory')")
        .await;
    let names: Vec<String> =
        (0..60).map(|n| if n % 20 == 7 { "mallory".into() } else { format!("user-{n}") }).collect();
    join_all(names.iter().map(|name| gate.charges(name, 2))).await;
    gate.flusher.flush_all().await.unwrap();
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 57);
    assert_eq!(world.number("select count(*) from dead_letters where user_uuid = 'mallory' and ap_used = 2").await, 3);
    let verdict = gate.verifier.verify().await.unwrap();
    assert!(verdict.drift.is_empty(), "{:?}", verdict.drift);
    assert_eq!((verdict.dead_letters, verdict.differences.len()), (3, 1), "Redis still has mallory's charges");
    assert!(verdict.differences[0].reason().contains("6 AP are in dead letters"), "{:?}", verdict.differences);
    // Refused again, because the cause is not fixed.
    let refused = gate.replayer.replay(&[]).await.unwrap();
    assert!(refused.iter().all(|(_, outcome)| matches!(outcome, Replayed::Refused(_))), "{refused:?}");
    execute(&world.database, "alter table chat_usage_logs drop constraint no_mallory").await;
    let newest = gate.postgres.dead_letters(1).await.unwrap()[0].id;
    assert_eq!(gate.replayer.replay(&[newest]).await.unwrap().len(), 1);
    assert_eq!(world.number("select count(*) from dead_letters").await, 2);
    // Two concurrent replays count each letter once.
    let (one, two) = tokio::join!(gate.replayer.replay(&[]), gate.replayer.replay(&[]));
    assert!(one.unwrap().iter().chain(&two.unwrap()).all(|(_, outcome)| *outcome == Replayed::Done));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select monthly_used from chat_quotas where user_uuid = 'mallory'").await, 6);
}

#[tokio::test]
async fn an_unreadable_entry_is_kept_whole_and_does_not_stop_the_flusher() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 1).await);
    let partition = gate.gate.partitions().of(&user("alice"));
    let mut connection = world.redis_connection().await;
    for payload in [&b"\x01garbage"[..], b"\x20no format", b"\x01\0\0\0\0\0\x01aaaaaaaaaaaaaaaa\x01"] {
        let stream = format!("qg:{{{partition}}}:ev:1");
        let _: String =
            redis::cmd("XADD").arg(stream).arg("*").arg("e").arg(payload).query_async(&mut connection).await.unwrap();
    }
    gate.flusher.flush_all().await.unwrap();
    assert!(gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from dead_letters where event is null").await, 3);
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 2);
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 1);
}

#[tokio::test]
async fn the_stream_is_trimmed_up_to_the_previous_watermark() {
    let world = World::new().await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    let levels = gate.postgres.all_levels().await.unwrap();
    for _ in 0..5 {
        assert!(gate.charges("alice", 1).await);
        let step = gate.flusher.flush_partition(partition, &levels).await.unwrap();
        assert_eq!(step, PartitionFlush::Flushed { events: 1, more: false });
    }
    assert_eq!(gate.redis.stream_length(partition, 1).await.unwrap(), 2);
    assert_eq!(gate.flusher.flush_partition(partition, &levels).await.unwrap(), PartitionFlush::Idle);
}

#[tokio::test]
async fn rows_of_a_month_without_a_partition_move_to_it_when_it_is_created() {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 3).await);
    gate.flush_and_verify().await;
    assert_eq!(gate.postgres.rows_in_default_partition().await.unwrap(), 1);
    let makers = join_all((0..4).map(|_| gate.postgres.ensure_log_partitions(world.clock.now(), 2))).await;
    assert_eq!(makers.into_iter().map(|made| made.unwrap().made).sum::<u32>(), 3);
    assert_eq!(gate.postgres.rows_in_default_partition().await.unwrap(), 0);
    assert_eq!(world.number("select count(*) from chat_usage_logs_202611").await, 1);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_stream_without_the_anchor_is_not_trimmed() {
    let world = World::new().await;
    let gate = world.gate().await;
    for _ in 0..3 {
        assert!(gate.charges("alice", 1).await);
    }
    let partition = gate.gate.partitions().of(&user("alice"));
    let (_, generation, _, entries) = next_batch(&gate).await;
    let last = entries.last().unwrap().position();
    // An older copy of Redis may have another event at the same id, or none.
    let other_event = Position { event: uuid::Uuid::from_u128(7), ..last };
    let other_id = Position { id: StreamId { ms: last.id.ms + 1, seq: 0 }, ..last };
    for anchor in [other_event, other_id] {
        assert_eq!(gate.redis.trim(partition, generation, anchor, last.id).await.unwrap(), None);
    }
    assert_eq!(gate.redis.stream_length(partition, generation).await.unwrap(), 4);
    assert_eq!(gate.redis.trim(partition, generation, last, last.id).await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_flush_may_be_cut_off_at_any_moment() {
    let world = World::new().await;
    let gate = world.gate().await;
    let levels = gate.postgres.all_levels().await.unwrap();
    let mut charges = 0;
    for cut_after in (0..3_000).step_by(30).map(Duration::from_micros) {
        assert!(gate.charges(&format!("user-{}", charges % 7), 1).await);
        charges += 1;
        let _ = tokio::time::timeout(cut_after, gate.flusher.flush_all()).await;
        // A connection that still had an answer of the flush would give it to this query.
        assert_eq!(gate.postgres.all_levels().await.unwrap(), levels, "after {cut_after:?}");
    }
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, charges);
}
