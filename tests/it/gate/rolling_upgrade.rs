//! Gates of two versions on the same stores: the older one leaves what it cannot read to the newer one.

use std::time::Duration;

use chrono::TimeDelta;
use quota_gate::{
    audit::{
        health::{HealthCheck, HealthLimits},
        replay::Replayed,
    },
    domain::{decision::Decision, partition::Partition, token_kinds::TokenKinds, usage::Tokens},
    gate::{Consume, GateError},
    jobs::flusher::PartitionFlush,
};

use crate::support::{GateUnderTest, World, consume, execute, user};

type RawEntries = Vec<(String, Vec<Vec<u8>>)>;

/// A gate that reads only format 1, as did a version that is older than the script's format.
async fn older(world: &World) -> GateUnderTest {
    gate_that_reads(world, 1).await
}

/// A gate that reads formats up to this one.
async fn gate_that_reads(world: &World, format: u8) -> GateUnderTest {
    world
        .gate_with(|tuning| {
            tuning.reads_formats_to = Some(format);
            tuning.deadline = Duration::from_millis(500);
        })
        .await
}

/// Charges 1 AP and turns the journal's entry into one of format 1, as a gate of that version would have written it.
async fn charge_in_old_format(world: &World, gate: &GateUnderTest, who: &str) {
    assert!(gate.charges(who, 1).await);
    let stream = format!("qg:{{{}}}:ev:1", gate.gate.partitions().of(&user(who)));
    let mut redis = world.redis_connection().await;
    let mut newest = redis::cmd("XREVRANGE");
    newest.arg(&stream).arg("+").arg("-").arg("COUNT").arg(1);
    let newest: RawEntries = newest.query_async(&mut redis).await.unwrap();
    let (id, fields) = &newest[0];
    let mut payload = fields[1].clone();
    payload[0] = 1;
    assert_eq!(payload.pop(), Some(0), "an empty name of a model, which format 1 does not have");
    let _: u64 = redis::cmd("XDEL").arg(&stream).arg(id).query_async(&mut redis).await.unwrap();
    let _: String =
        redis::cmd("XADD").arg(&stream).arg("*").arg("e").arg(payload).query_async(&mut redis).await.unwrap();
}

/// Two users of different partitions.
fn two_users(gate: &GateUnderTest) -> (String, String, Partition) {
    let partition = |name: &String| gate.gate.partitions().of(&user(name));
    let alice = "alice".to_owned();
    let mut others = (0..100).map(|number| format!("user-{number}"));
    let other = others.find(|name| partition(name) != partition(&alice)).unwrap();
    let partition = partition(&alice);
    (alice, other, partition)
}

#[tokio::test]
async fn an_older_flusher_stops_at_an_entry_that_it_cannot_read_and_a_newer_one_continues() {
    let world = World::new().await;
    let (newer, older) = (world.gate().await, older(&world).await);
    let (alice, other, partition) = two_users(&older);
    charge_in_old_format(&world, &older, &alice).await;
    assert!(newer.charges(&alice, 10).await);
    charge_in_old_format(&world, &older, &alice).await;
    charge_in_old_format(&world, &older, &other).await;

    // What precedes the entry is flushed, and so are other partitions.
    older.flusher.flush_all().await.unwrap();
    let logged = "select sum(ap_used)::bigint from chat_usage_logs";
    assert_eq!(world.number(logged).await, 2);
    let levels = older.postgres.all_levels().await.unwrap();
    let again = older.flusher.flush_partition(partition, &levels).await.unwrap();
    assert_eq!(again, PartitionFlush::Newer(2));
    assert_eq!(older.redis.stream_length(partition, 1).await.unwrap(), 4, "genesis is trimmed later, nothing else is");
    // Every report says so.
    let problem = "a gate of a newer version writes journal format 2: upgrade this gate";
    assert_eq!(older.gate.newer_journal_problem().as_deref(), Some(problem));
    let limits = HealthLimits { reset_overdue_after: TimeDelta::days(1), flush_lag_max: TimeDelta::hours(1) };
    let health = HealthCheck::new(&older.gate, limits).check().await.unwrap();
    assert_eq!(health.problems, [problem]);
    let verdict = older.verifier.verify().await.unwrap();
    assert!(verdict.differences.iter().all(|found| found.unreadable), "{verdict:#?}");
    assert_eq!(older.repairer.repair().await.unwrap().adjustments, 0);

    newer.flush_and_verify().await;
    assert_eq!(world.number(logged).await, 13);
    // The older one can continue after an entry that it cannot read, once that is flushed.
    assert!(newer.charges(&alice, 20).await);
    newer.flush_and_verify().await;
    charge_in_old_format(&world, &older, &alice).await;
    let flushed = older.flusher.flush_partition(partition, &levels).await.unwrap();
    assert_eq!(flushed, PartitionFlush::Flushed { events: 1, more: false });
    assert_eq!(older.gate.newer_journal_problem(), None);
    newer.flush_and_verify().await;
    assert_eq!(world.number(logged).await, 34);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 1);
}

#[tokio::test]
async fn an_older_gate_leaves_the_opening_of_a_partition_that_it_cannot_read_to_a_newer_one() {
    let world = World::new().await;
    let (newer, older) = (world.gate().await, older(&world).await);
    let (alice, other, partition) = two_users(&older);
    charge_in_old_format(&world, &older, &alice).await;
    assert!(newer.charges(&alice, 10).await);
    charge_in_old_format(&world, &older, &other).await;
    let mut redis = world.redis_connection().await;
    for partition in older.gate.partitions().all() {
        let _: () = redis::cmd("DEL").arg(format!("qg:{{{partition}}}:gen")).query_async(&mut redis).await.unwrap();
    }
    let refused = older.consume(&alice, 1).await.unwrap_err();
    assert!(matches!(refused, GateError::Unavailable { .. }), "{refused}");
    assert_eq!(older.gate.newer_journal(partition), Some(2));
    // Its flusher does not wait for that partition, and the other partition is opened.
    older.flusher.flush_all().await.unwrap();
    assert!(older.charges(&other, 1).await);

    assert!(newer.charges(&alice, 1).await);
    assert!(older.charges(&alice, 1).await, "the older gate uses what the newer one has opened");
    newer.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 15);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn after_a_rollback_an_older_gate_opens_a_partition_whose_newer_entries_are_flushed() {
    let world = World::new().await;
    let (newer, older) = (world.gate().await, older(&world).await);
    let (alice, _, partition) = two_users(&older);
    assert!(newer.charges(&alice, 10).await && newer.charges(&alice, 20).await);
    newer.flush_and_verify().await;
    charge_in_old_format(&world, &older, &alice).await;
    let mut redis = world.redis_connection().await;
    let _: () = redis::cmd("DEL").arg(format!("qg:{{{partition}}}:gen")).query_async(&mut redis).await.unwrap();
    assert!(older.charges(&alice, 1).await);
    assert_eq!(older.gate.newer_journal_problem(), None);
    newer.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 32);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn the_previous_version_reads_all_entries_but_those_with_extended_events() {
    let world = World::new().await;
    let (newer, previous) = (world.gate().await, gate_that_reads(&world, 2).await);
    let (alice, _, partition) = two_users(&previous);
    let logged = "select sum(ap_used)::bigint from chat_usage_logs";
    assert!(newer.charges(&alice, 1).await && previous.charges(&alice, 1).await);
    previous.flush_and_verify().await;
    assert_eq!(world.number(logged).await, 2);

    let tokens = Tokens::of_kinds(TokenKinds::new(7, 3, 4).unwrap());
    let extended = Consume { tokens, ..consume(&alice, 10) };
    assert!(matches!(newer.gate.consume(extended).await.unwrap(), Decision::Allowed(_)));
    assert!(previous.charges(&alice, 1).await);
    previous.flusher.flush_all().await.unwrap();
    let levels = previous.postgres.all_levels().await.unwrap();
    let left = previous.flusher.flush_partition(partition, &levels).await.unwrap();
    assert_eq!(left, PartitionFlush::Newer(3));
    assert_eq!(world.number(logged).await, 2, "nothing is skipped");
    newer.flush_and_verify().await;
    assert_eq!(world.number(logged).await, 13);
    assert_eq!(world.number("select tokens_used::bigint from chat_usage_logs where ap_used = 10").await, 11);
    assert!(previous.charges(&alice, 1).await);
    previous.flush_and_verify().await;
    assert_eq!(world.number(logged).await, 14);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn a_dead_letter_of_a_newer_format_is_kept_for_the_version_that_can_read_it() {
    let world = World::new().await;
    let gate = world.gate().await;
    execute(
        &world.database,
        "insert into dead_letters (partition, generation, entry_id, payload, reason, created_at)
         values (0, 1, '1-1', '\\x09'::bytea, 'an older version wrote it', now())",
    )
    .await;
    let replayed = gate.replayer.replay(&[]).await.unwrap();
    assert!(matches!(&replayed[0].1, Replayed::Refused(reason) if reason.contains("journal format 9")), "{replayed:?}");
    assert_eq!(world.number("select count(*) from dead_letters").await, 1);
}
