//! Opening a partition: each step may be repeated, delayed, or interleaved with another opener's steps.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use quota_gate::{
    audit::health::{HealthCheck, HealthLimits},
    domain::{
        clock::Clock,
        decision::Decision,
        journal::{Content, Entry},
        partition::Partition,
        usage::UsageEvent,
    },
    gate::GateError,
    jobs::flusher::PartitionFlush,
    store::{
        postgres::{Flush, FlushOutcome},
        redis::Drained,
    },
};

use crate::support::{GateUnderTest, Tuning, World, eventually, user};

fn partition(gate: &GateUnderTest) -> Partition {
    gate.gate.partitions().of(&user("alice"))
}

async fn drain(gate: &GateUnderTest) -> (Drained, Vec<Entry>) {
    let mut draining = gate.redis.drain(partition(gate), &[1], None).await.unwrap();
    let mut entries = Vec::new();
    while let Some(part) = draining.next().await.unwrap() {
        entries.extend(part);
    }
    (draining.ended().unwrap(), entries)
}

async fn drain_to_postgres(gate: &GateUnderTest, generation: u32, entries: &[Entry]) -> Option<u64> {
    let levels = gate.postgres.all_levels().await.unwrap();
    let (number, now) = (partition(gate).number(), now());
    let report = gate.postgres.drain(number, generation, entries, &levels, gate.gate.calendar(), now).await.unwrap();
    report.map(|report| report.inserted)
}

fn now() -> DateTime<Utc> {
    Clock::machine().now()
}

#[tokio::test]
async fn a_suspended_opener_changes_nothing_once_another_has_opened() {
    let world = World::new().await;
    let gate = world.gate().await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    // The first opener takes the first three steps and is suspended.
    assert!(gate.postgres.begin_opening(place.number(), 1, now()).await.unwrap().is_some());
    let fence = gate.redis.fence(place).await.unwrap();
    assert!(gate.redis.close(place, fence.as_ref()).await.unwrap());
    let (asleep, entries) = drain(&gate).await;
    // The gate gets STALE, takes over, opens generation 2 and continues.
    assert!(gate.charges("alice", 7).await);
    gate.flush_and_verify().await;
    assert!(gate.charges("alice", 11).await);
    // The first opener resumes: none of its steps has an effect.
    assert!(!gate.redis.close(place, fence.as_ref()).await.unwrap(), "the fence has changed");
    assert_eq!(drain_to_postgres(&gate, 1, &entries).await, None, "the generation has changed");
    let opened = gate.redis.open(place, asleep.generation_max + 1, &asleep, &gate.gate.levels()).await.unwrap();
    assert_eq!(opened, None, "the fence exists");
    assert!(!gate.postgres.finish_opening(place.number(), 1, (2, "2 a:b", true), now()).await.unwrap());
    assert!(gate.postgres.begin_opening(place.number(), 1, now()).await.unwrap().is_none());
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 23);
}

#[tokio::test]
async fn a_request_that_two_primaries_executed_is_counted_once() {
    let world = World::new().await;
    let gate = world.gate().await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    let (_, entries) = drain(&gate).await;
    let [charged] = entries[1].events() else { panic!("one charge") };
    let later = |seconds| UsageEvent { at: charged.at + TimeDelta::seconds(seconds), ..charged.clone() };
    let twice = [Entry { content: Content::Events(vec![later(1), later(2)]), ..entries[1].clone() }];
    assert!(gate.postgres.begin_opening(place.number(), 1, now()).await.unwrap().is_some());
    assert_eq!(drain_to_postgres(&gate, 1, &twice).await, Some(1));
    // The other primary's journal is drained later and has the charge at another time.
    assert_eq!(drain_to_postgres(&gate, 1, &entries).await, Some(0));
    gate.gate.leave_generation(place, 1).await.unwrap();
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 5);
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 1);
}

#[tokio::test]
async fn a_charge_after_the_drain_prevents_the_opening() {
    let world = World::new().await;
    let gate = world.gate().await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    assert!(gate.postgres.begin_opening(place.number(), 1, now()).await.unwrap().is_some());
    let (drained, entries) = drain(&gate).await;
    // The fence is not deleted yet, so a charge is accepted; then the fence is deleted.
    assert!(gate.charges("alice", 7).await);
    let fence = gate.redis.fence(place).await.unwrap();
    assert!(gate.redis.close(place, fence.as_ref()).await.unwrap());
    assert_eq!(drain_to_postgres(&gate, 1, &entries).await, Some(1));
    let opened = gate.redis.open(place, 2, &drained, &gate.gate.levels()).await.unwrap();
    assert_eq!(opened, None, "the stream does not end where it was drained");
    assert!(gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 13);
}

#[tokio::test]
async fn no_flush_commits_while_a_partition_is_being_opened() {
    let world = World::new().await;
    let gate = world.gate().await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    // A flusher has read entries; before it commits, an opening begins.
    let from = gate.postgres.watermark(place.number()).await.unwrap().position.unwrap();
    let entries = gate.redis.read_stream(place, 1, from.id, 10).await.unwrap();
    assert!(gate.postgres.begin_opening(place.number(), 1, now()).await.unwrap().is_some());
    let levels = gate.postgres.all_levels().await.unwrap();
    let flush = Flush {
        partition: place.number(),
        generation: 1,
        from,
        entries: &entries[1..],
        levels: &levels,
        calendar: gate.gate.calendar(),
        now: now(),
    };
    assert!(matches!(gate.postgres.flush(flush).await.unwrap(), FlushOutcome::Superseded));
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 0);
    gate.gate.leave_generation(place, 1).await.unwrap();
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 5);
}

#[tokio::test]
async fn a_flusher_takes_over_an_opening_whose_opener_died_before_it_deleted_the_fence() {
    let world = World::new().await;
    let gate = world.gate().await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    assert!(gate.postgres.begin_opening(place.number(), 1, now()).await.unwrap().is_some());
    // The fence exists, so no message gets STALE, and none would ever be flushed.
    assert!(gate.charges("alice", 7).await);
    let check = HealthCheck::new(
        &gate.gate,
        HealthLimits { reset_overdue_after: TimeDelta::hours(1), flush_lag_max: TimeDelta::hours(1) },
    );
    let problem = format!("partition {place} is being opened: its usage waits until it is");
    assert_eq!(check.check().await.unwrap().problems, [problem]);
    let levels = gate.postgres.all_levels().await.unwrap();
    assert_eq!(gate.flusher.flush_partition(place, &levels).await.unwrap(), PartitionFlush::Reopened);
    assert!(gate.charges("alice", 11).await);
    gate.flush_and_verify().await;
    assert!(check.check().await.unwrap().problems.is_empty());
    assert_eq!(world.number("select total_used from chat_quotas").await, 23);
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 2);
}

#[tokio::test]
async fn a_suspended_opener_is_replaced_however_briefly_others_wait() {
    let world = World::new().await;
    let gate = world.gate_with(|tuning| tuning.deadline = Duration::from_millis(100)).await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    // The claim of an opener that does nothing afterwards.
    assert!(gate.postgres.claim_opening(place.number(), uuid::Uuid::new_v4(), 2.0).await.unwrap());
    let waiting = gate.gate.leave_generation(place, 1).await;
    assert!(matches!(waiting, Err(GateError::Unavailable { .. })), "another opener is working on it");
    crate::support::eventually("another opener takes over", async || {
        gate.gate.leave_generation(place, 1).await.is_ok()
    })
    .await;
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 5);
}

#[tokio::test]
async fn an_opening_continues_after_the_caller_that_began_it_timed_out() {
    let world = World::new().await;
    let gate = world.gate_with(|tuning| tuning.deadline = Duration::from_millis(50)).await;
    assert!(gate.charges("alice", 5).await);
    let mut holder = world.pool.begin().await.unwrap();
    sqlx::query("select from flush_watermarks for update").execute(&mut *holder).await.unwrap();
    assert!(gate.gate.leave_generation(partition(&gate), 1).await.is_err(), "the row cannot be marked yet");
    holder.rollback().await.unwrap();
    let opened = "select max(generation)::bigint from flush_watermarks";
    crate::support::eventually("the partition is open", async || world.number(opened).await == 2).await;
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 5);
}

#[tokio::test]
async fn a_gate_whose_redis_accepts_no_writes_leaves_the_partition_to_others() {
    let world = World::new().await;
    let gate = world.gate().await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    let replicas_asked_for = async |count: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("min-replicas-to-write").arg(count);
        let _: () = command.query_async(&mut world.redis_connection().await).await.unwrap();
    };
    replicas_asked_for("1").await;
    assert!(gate.gate.leave_generation(place, 1).await.is_err());
    let watermark = gate.postgres.watermark(place.number()).await.unwrap();
    assert!(watermark.position.is_some(), "no opening was begun that cannot finish");
    replicas_asked_for("0").await;
    gate.gate.leave_generation(place, 1).await.unwrap();
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn gates_that_open_concurrently_under_load_lose_and_duplicate_nothing() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await, world.gate().await];
    let (charged, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let charging = join_all((0..12).map(async |n| {
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            let who = format!("user-{}", (n + round) % 40);
            match gates[n % 3].consume(&who, 1).await {
                Ok(Decision::Allowed(_)) => {
                    charged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Decision::Denied(_) | Decision::Passed(_)) => {}
                Err(error) => panic!("{error}"),
            }
            round += 1;
        }
    }));
    let flushing = join_all(gates.iter().map(async |gate| {
        while !stop.load(Ordering::Relaxed) {
            gate.flusher.flush_all().await.unwrap();
            tokio::task::yield_now().await;
        }
    }));
    // Both partitions are reopened repeatedly, by all gates concurrently or because the fence is missing.
    let disturbing = async {
        let mut connection = world.redis_connection().await;
        for round in 0..12 {
            for partition in gates[0].gate.partitions().all() {
                let generation = gates[0].postgres.watermark(partition.number()).await.unwrap().generation;
                if round % 2 == 0 {
                    let key = format!("qg:{{{partition}}}:gen");
                    let _: () = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
                } else {
                    join_all(gates.iter().map(|gate| gate.gate.leave_generation(partition, generation)))
                        .await
                        .into_iter()
                        .for_each(|outcome| outcome.unwrap());
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(charging, flushing, disturbing);
    gates[0].flush_and_verify().await;
    assert!(world.number("select min(generation)::bigint from flush_watermarks").await > 6);
    let rows = world.number("select count(*) from chat_usage_logs").await;
    assert_eq!(rows, i64::from(charged.load(Ordering::Relaxed)));
    assert!(rows > 100, "{rows} charges are too few to prove anything");
}

#[tokio::test]
async fn opening_many_partitions_needs_few_connections() {
    let mut world = World::new().await.with_partitions(32);
    // An opener that kept one connection while it waits for another would wait for a minute.
    let few = |tuning: &mut Tuning| {
        (tuning.postgres_connections, tuning.acquire_timeout) = (2, Duration::from_mins(1));
    };
    let gate = world.gate_with(few).await;
    let mut users = BTreeMap::new();
    for number in 0.. {
        let name = format!("user-{number}");
        users.entry(gate.gate.partitions().of(&user(&name)).number()).or_insert(name);
        if users.len() == 32 {
            break;
        }
    }
    world.redis.restart().await.unwrap();
    eventually("each partition serves again", async || {
        let charges = users.values().map(|name| gate.consume(name, 1));
        join_all(charges).await.iter().all(|charge| matches!(charge, Ok(Decision::Allowed(_))))
    })
    .await;
    gate.flush_and_verify().await;
    assert_eq!(world.number("select min(generation)::bigint from flush_watermarks").await, 2);
}

/// Returns in how many partitions answers to requests with a key count as lost.
async fn lost_answers(world: &World) -> i64 {
    world.number("select count(*) from flush_watermarks where answers_since is not null").await
}

#[tokio::test]
async fn answers_count_as_lost_if_an_earlier_attempt_wrote_charges_that_redis_may_lose() {
    let world = World::new().await;
    let gate = world.gate().await;
    let place = partition(&gate);
    assert!(gate.charges("alice", 5).await);
    gate.flush_and_verify().await;
    let flushed = gate.postgres.watermark(place.number()).await.unwrap().position.unwrap();
    // Nothing is lost: the last flushed entry is in Redis.
    assert!(gate.charges("alice", 7).await);
    let began = gate.postgres.begin_opening(place.number(), 1, now()).await.unwrap().unwrap();
    assert_eq!((began.id, began.event), (Some(flushed.id), flushed.event));
    gate.gate.leave_generation(place, 1).await.unwrap();
    assert_eq!(lost_answers(&world).await, 0);
    // An attempt writes a charge and fails. The next one may find a copy of Redis that ends before that charge.
    assert!(gate.charges("alice", 11).await);
    gate.postgres.begin_opening(place.number(), 2, now()).await.unwrap().unwrap();
    let mut draining = gate.redis.drain(place, &[2], None).await.unwrap();
    while let Some(part) = draining.next().await.unwrap() {
        drain_to_postgres(&gate, 2, &part).await.unwrap();
    }
    gate.gate.leave_generation(place, 2).await.unwrap();
    assert_eq!(lost_answers(&world).await, 1);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 23);
}

#[tokio::test]
async fn a_partition_is_opened_although_the_memory_of_redis_is_full() {
    let world = World::new().await;
    let gate = world.gate().await;
    for number in 0..50 {
        assert!(gate.charges(&format!("user-{number}"), 5).await);
    }
    let mut connection = world.redis_connection().await;
    let mut limit = async |bytes: &str| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query_async::<()>(&mut connection).await.unwrap();
    };
    limit("1mb").await;
    gate.gate.leave_generation(partition(&gate), 1).await.unwrap();
    assert_eq!(gate.gate.generation(partition(&gate)), 2);
    limit("0").await;
    assert!(gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(total_used)::bigint from chat_quotas").await, 251);
}
