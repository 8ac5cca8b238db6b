//! Redis loses data: flushed charges are kept, and only unflushed ones are lost.

use std::time::Duration;

use futures_util::future::join_all;
use quota_gate::{
    domain::{ap::Ap, decision::Decision},
    gate::{Commit, GateError},
};
use quota_gate_dev::RedisServer;

use crate::support::{GateUnderTest, World, reserve, user};

async fn used(gate: &GateUnderTest, who: &str) -> u32 {
    gate.gate.quota(&user(who)).await.unwrap().used.get()
}

async fn flushall(world: &World) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
}

#[tokio::test]
async fn after_flushall_flushed_charges_are_kept_and_only_the_unflushed_tail_is_lost() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    assert!(one.charges("alice", 60).await);
    one.flush_and_verify().await;
    assert!(one.charges("alice", 7).await);
    flushall(&world).await;
    // Two gates detect the loss concurrently; one of them opens the partition.
    let quotas = tokio::join!(used(&one, "alice"), used(&two, "alice"));
    assert_eq!(quotas, (60, 60));
    assert!(two.charges("alice", 40).await && !one.charges("alice", 1).await);
    one.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 100);
}

#[tokio::test]
async fn after_an_empty_restart_flushed_charges_are_kept() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 60).await);
    gate.flush_and_verify().await;
    world.redis.kill().await;
    std::fs::remove_dir_all(world.redis.dir().join("appendonlydir")).unwrap();
    world.redis.restart().await.unwrap();
    // A broken connection does not prove that nothing happened, so the first answers may be errors.
    crate::support::eventually("the gate answers again", async || {
        gate.gate.quota_and_holds(&user("alice")).await.is_ok()
    })
    .await;
    assert_eq!(used(&gate, "alice").await, 60);
    assert!(gate.charges("alice", 40).await && !gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_killed_redis_that_restarts_with_its_file_loses_nothing() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    for _ in 0..50 {
        assert!(gate.charges("alice", 1).await);
    }
    world.redis.kill().await;
    world.redis.restart().await.unwrap();
    crate::support::eventually("the gate answers again", async || {
        gate.gate.quota_and_holds(&user("alice")).await.is_ok()
    })
    .await;
    assert_eq!(used(&gate, "alice").await, 50);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 50);
}

#[tokio::test]
async fn a_restart_between_two_messages_leaves_no_indeterminate_charge() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await);
    world.redis.stop().await;
    world.redis.restart().await.unwrap();
    // The gate's connections were closed while idle. The gate detects this before it sends anything.
    assert!(gate.charges("alice", 5).await);
    assert_eq!(used(&gate, "alice").await, 10);
}

#[tokio::test]
async fn an_older_copy_of_redis_is_detected_by_its_missing_anchor() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 10).await);
    keep_copy(&mut world).await;
    crate::support::eventually("the gate answers again", async || {
        gate.gate.quota_and_holds(&user("alice")).await.is_ok()
    })
    .await;
    assert!(gate.charges("alice", 50).await);
    gate.flush_and_verify().await;

    // The older copy is restored: same generation, a counter that is too low, a stream without the anchor.
    bring_copy_back(&mut world).await;
    crate::support::eventually("the flusher detects the copy", async || gate.flusher.flush_all().await.is_ok()).await;
    assert_eq!(used(&gate, "alice").await, 60);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 3);
}

#[tokio::test]
async fn an_older_copy_of_redis_decides_nothing_because_it_is_another_process() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 10).await);
    keep_copy(&mut world).await;
    assert!(gate.charges("alice", 50).await);
    gate.flush_and_verify().await;

    bring_copy_back(&mut world).await;
    // In the older record alice has used 10 of 100, and its fence and stream look right.
    assert!(!gate.charges("alice", 41).await, "an older copy admits no message");
    assert!(gate.charges("alice", 40).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_former_replica_counts_as_another_redis_for_new_connections() {
    let world = World::new().await;
    let one = world.gate().await;
    assert!(one.charges("alice", 5).await);
    let replicaof = async |host: &str, port: &str| {
        let mut command = redis::cmd("REPLICAOF");
        command.arg(host).arg(port);
        let _: () = command.query_async(&mut world.redis_connection().await).await.unwrap();
    };
    replicaof("127.0.0.1", "1").await;
    replicaof("NO", "ONE").await;
    // A gate that connects now opens a generation; one with older connections gets STALE and asks again.
    let two = world.gate().await;
    assert!(two.charges("alice", 5).await);
    assert!(one.charges("alice", 5).await);
    assert_eq!((used(&one, "alice").await, used(&two, "alice").await), (15, 15));
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 2);
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_redis_with_a_replicas_older_data_counts_as_another_one_for_open_connections() {
    let world = World::new().await;
    let replica = crate::support::redis().await;
    follow(&replica, &world.redis).await;
    let gate = world.gate_with(|tuning| tuning.batcher.identity_trust = Duration::ZERO).await;
    assert!(gate.charges("alice", 10).await);
    assert_eq!(command(&world.redis, &["WAIT", "1", "0"]).await, "1");
    command(&replica, &["REPLICAOF", "NO", "ONE"]).await;
    assert!(gate.charges("alice", 50).await);
    gate.flush_and_verify().await;
    // The primary follows its former replica and is promoted again. The gate's connections stay open and idle.
    follow(&world.redis, &replica).await;
    command(&world.redis, &["REPLICAOF", "NO", "ONE"]).await;
    assert!(!gate.charges("alice", 41).await, "60 of 100 are used, whatever this Redis has");
    assert!(gate.charges("alice", 40).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 2);
}

async fn command(server: &RedisServer, words: &[&str]) -> String {
    let client = redis::Client::open(server.operator_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::Cmd::new().arg(words).query_async(&mut connection).await.unwrap()
}

/// Makes one server a replica of another, and waits until it has the other's data.
async fn follow(replica: &RedisServer, primary: &RedisServer) {
    command(replica, &["CONFIG", "SET", "masteruser", "replica", "masterauth", primary.password()]).await;
    command(replica, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    crate::support::eventually("the replica follows", async || {
        command(replica, &["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
}

/// Copies the current data of Redis.
async fn keep_copy(world: &mut World) {
    world.redis.stop().await;
    copy_dir(&world.redis.dir().join("appendonlydir"), &world.redis.dir().join("copy"));
    world.redis.restart().await.unwrap();
}

/// Restarts Redis with the copied data.
async fn bring_copy_back(world: &mut World) {
    world.redis.stop().await;
    let data = world.redis.dir().join("appendonlydir");
    std::fs::remove_dir_all(&data).unwrap();
    copy_dir(&world.redis.dir().join("copy"), &data);
    world.redis.restart().await.unwrap();
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-rp").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn unflushed_charges_that_survived_are_drained_before_a_new_generation_opens() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 10).await);
    gate.flush_and_verify().await;
    assert!(gate.charges("alice", 5).await);
    // Only the fence is lost.
    let partition = gate.gate.partitions().of(&user("alice"));
    let _: () = redis::cmd("DEL")
        .arg(format!("qg:{{{partition}}}:gen"))
        .query_async(&mut world.redis_connection().await)
        .await
        .unwrap();
    assert_eq!(used(&gate, "alice").await, 15);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 2);
}

#[tokio::test]
async fn a_hold_that_redis_lost_can_be_committed_once_by_its_id() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    let Decision::Allowed(held) = one.gate.reserve(reserve("alice", 10, 60)).await.unwrap() else { panic!("denied") };
    let id = one.gate.reservation_id(&held.reservation);
    flushall(&world).await;
    let commit = || Commit { ap: Some(Ap::new(8)), ..Commit::default() };
    let answers = join_all(
        (0..20).map(|n| if n % 2 == 0 { one.gate.commit(&id, commit()) } else { two.gate.commit(&id, commit()) }),
    )
    .await;
    let first: Vec<bool> =
        answers.into_iter().map(|answer| !answer.unwrap().now().unwrap().replayed).filter(|first| *first).collect();
    assert_eq!(first.len(), 1);
    assert_eq!(used(&two, "alice").await, 8);
    assert!(matches!(one.gate.release(&id).await, Err(GateError::AlreadySettled(_))));
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_commit_that_was_flushed_before_the_loss_is_not_charged_again() {
    let world = World::new().await;
    let gate = world.gate().await;
    let Decision::Allowed(held) = gate.gate.reserve(reserve("alice", 10, 60)).await.unwrap() else { panic!("denied") };
    let id = gate.gate.reservation_id(&held.reservation);
    let commit = || Commit { ap: Some(Ap::new(8)), ..Commit::default() };
    gate.gate.commit(&id, commit()).await.unwrap();
    gate.flush_and_verify().await;
    flushall(&world).await;
    let again = gate.gate.commit(&id, commit()).await.unwrap().now().unwrap();
    assert_eq!((again.charged.get(), again.replayed, again.quota.used.get()), (8, true, 8));
    let other = Commit { ap: Some(Ap::new(9)), ..commit() };
    assert!(matches!(gate.gate.commit(&id, other).await, Err(GateError::Mismatch(_))));
    assert!(matches!(gate.gate.release(&id).await, Err(GateError::AlreadySettled(_))));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 1);
}

#[tokio::test]
async fn a_postgres_that_is_behind_grants_nothing_twice() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 70).await);
    gate.flush_and_verify().await;
    // As after a restore from a backup without alice's charge.
    crate::support::execute(&world.database, "update chat_quotas set monthly_used = 0, total_used = 0").await;
    crate::support::execute(&world.database, "update flush_watermarks set generation = 1, last_id = '0-1', last_event = '00000000-0000-0000-0000-000000000000'").await;
    gate.flusher.flush_all().await.ok();
    let partition = gate.gate.partitions().of(&user("alice"));
    gate.gate
        .leave_generation(partition, gate.postgres.watermark(partition.number()).await.unwrap().generation)
        .await
        .unwrap();
    assert!(!gate.charges("alice", 31).await);
    assert!(gate.charges("alice", 30).await);
}

#[tokio::test]
async fn a_postgres_that_has_an_older_generation_moves_to_a_later_one() {
    let world = World::new().await;
    let gate = world.gate().await;
    let partition = gate.gate.partitions().of(&user("alice"));
    gate.gate.leave_generation(partition, 1).await.unwrap();
    assert!(gate.charges("alice", 5).await);
    // As after a restore from a backup that was made before the partition was reopened.
    crate::support::execute(&world.database, "update flush_watermarks set generation = 1").await;
    assert!(gate.charges("alice", 7).await, "Redis continues in generation 2");
    let flushing = tokio::time::timeout(Duration::from_mins(1), gate.flush_and_verify());
    flushing.await.expect("the flusher does not loop forever");
    assert_eq!(world.number("select total_used from chat_quotas").await, 12);
    assert_eq!(world.number("select max(generation)::bigint from flush_watermarks").await, 3);
}

#[tokio::test]
async fn a_suspended_gate_charges_nothing_in_an_older_generation() {
    let world = World::new().await;
    let (awake, asleep) = (world.gate().await, world.gate().await);
    assert!(asleep.charges("alice", 1).await);
    let partition = awake.gate.partitions().of(&user("alice"));
    awake.gate.leave_generation(partition, 1).await.unwrap();
    // Its next call names generation 1 and is refused. The gate then continues in generation 2.
    assert!(asleep.charges("alice", 2).await);
    assert_eq!(used(&awake, "alice").await, 3);
    awake.flush_and_verify().await;
    let stream: bool = redis::cmd("EXISTS")
        .arg(format!("qg:{{{partition}}}:ev:1"))
        .query_async(&mut world.redis_connection().await)
        .await
        .unwrap();
    assert!(!stream);
}
