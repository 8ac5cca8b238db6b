//! Gates with different Redis servers: only one side serves, and moving all gates to another server loses nothing.

use std::time::Duration;

use chrono::TimeDelta;
use quota_gate::{
    audit::health::{HealthCheck, HealthLimits},
    domain::decision::{Decision, Settled},
    gate::{Commit, GateError},
    jobs::presence::Presence,
    runtime::{Runtime, RuntimeOptions, StartError},
    store::redis::{Redis, RedisOptions},
};
use quota_gate_dev::RedisServer;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{
    Detour, GateUnderTest, World, consume, eventually, redis_like, repeat, replica_of, reserve, send,
};

/// A gate that reports its presence, behind a port that can lead to another Redis.
struct Movable {
    under_test: GateUnderTest,
    detour: Detour,
    _reporting: DropGuard,
}

impl Movable {
    async fn on(world: &World) -> Self {
        let detour = Detour::to(world.redis.port()).await;
        let url = detour.url(&world.redis.url(), world.redis.port());
        let under_test = world.gate_with(|tuning| tuning.redis_url = Some(url)).await;
        let reporting = CancellationToken::new();
        tokio::spawn(repeat(Presence::new(&under_test.gate), &reporting));
        Self { under_test, detour, _reporting: reporting.drop_guard() }
    }

    async fn is_refused(&self) {
        eventually("the gate is refused", async || self.under_test.gate.refusal().is_some()).await;
        let refused = self.under_test.consume("alice", 1).await;
        assert!(matches!(refused, Err(GateError::OtherRedis { .. })), "{refused:?}");
    }

    async fn serves(&self) {
        eventually("the gate serves", async || {
            self.under_test.gate.refusal().is_none()
                && matches!(self.under_test.consume("alice", 1).await, Ok(Decision::Allowed(_)))
        })
        .await;
    }

    async fn problems(&self) -> Vec<String> {
        let limits = HealthLimits { reset_overdue_after: TimeDelta::hours(1), flush_lag_max: TimeDelta::hours(1) };
        HealthCheck::new(&self.under_test.gate, limits).check().await.unwrap().problems
    }
}

async fn both_report(world: &World) {
    eventually("both gates report", async || world.number("select count(*) from gates").await == 2).await;
}

async fn generation(world: &World) -> i64 {
    world.number("select max(generation)::bigint from flush_watermarks").await
}

/// Waits until the partitions are open again, because the first replica changes the id of the primary's history.
async fn reopened(world: &World) {
    let open = "select min(generation)::bigint from flush_watermarks where last_id is not null";
    eventually("the partitions are open again", async || world.number(open).await == 2).await;
}

async fn flush_all_and_count(world: &World, gate: &GateUnderTest) -> i64 {
    gate.flush_and_verify().await;
    world.number("select coalesce(sum(ap_used), 0)::bigint from chat_usage_logs").await
}

#[tokio::test]
async fn a_gate_moved_to_an_empty_redis_is_refused_while_another_serves() {
    let world = World::new().await;
    let (stays, moves) = (Movable::on(&world).await, Movable::on(&world).await);
    both_report(&world).await;
    let Decision::Allowed(held) = moves.under_test.gate.reserve(reserve("alice", 7, 600)).await.unwrap() else {
        panic!("denied")
    };
    let other = redis_like(&world.redis).await;
    moves.detour.lead_to(other.port());
    moves.is_refused().await;
    assert!(stays.under_test.charges("alice", 5).await, "the other gate serves");
    assert_eq!(generation(&world).await, 1, "nothing was opened");
    assert_eq!(send::<i64>(&other, &["DBSIZE"]).await, 0, "nothing was written to the other Redis");
    // What was promised can be settled at any gate.
    let id = moves.under_test.gate.reservation_id(&held.reservation);
    let settled = moves.under_test.gate.commit(&id, Commit::default()).await.unwrap();
    assert!(matches!(settled, Settled::Later), "{settled:?}");
    assert_eq!(moves.problems().await, ["other gates serve from another Redis than this gate, which does not serve"]);
    eventually("the other gate knows", async || {
        stays.problems().await == ["1 other gates have another Redis, and do not serve"]
    })
    .await;
    // The Redis of the serving gate restarts with its data. The refused gate waits.
    let mut world = world;
    world.redis.restart().await.unwrap();
    stays.serves().await;
    moves.is_refused().await;
    moves.detour.lead_to(world.redis.port());
    moves.serves().await;
    assert_eq!(moves.problems().await, Vec::<String>::new());
    assert_eq!(stays.under_test.inbox_worker.apply_some().await.unwrap(), 1);
    stays.under_test.flush_and_verify().await;
}

#[tokio::test]
async fn a_generation_that_two_servers_have_is_served_by_the_one_that_postgres_names() {
    let world = World::new().await;
    let (stays, moves) = (Movable::on(&world).await, Movable::on(&world).await);
    both_report(&world).await;
    // An opener slept before step 4, and continues in the other Redis after another has opened the generation.
    let other = redis_like(&world.redis).await;
    let store = Redis::new(&RedisOptions::new(&other.url())).unwrap();
    let (partitions, levels) = (moves.under_test.gate.partitions(), moves.under_test.gate.levels());
    for partition in partitions.all() {
        let mut draining = store.drain(partition, &[], None).await.unwrap();
        assert!(draining.next().await.unwrap().is_none());
        assert!(store.open(partition, 1, &draining.ended().unwrap(), &levels).await.unwrap().is_some());
    }
    moves.detour.lead_to(other.port());
    moves.is_refused().await;
    eventually("each partition of the other Redis is closed", async || {
        let mut open = 0;
        for partition in partitions.all() {
            open += usize::from(store.fence(partition).await.unwrap().is_some());
        }
        open == 0
    })
    .await;
    assert!(stays.under_test.charges("alice", 5).await);
    assert_eq!(generation(&world).await, 1);
    assert_eq!(flush_all_and_count(&world, &stays.under_test).await, 5);
}

#[tokio::test]
async fn a_gate_that_is_left_behind_stops_when_a_replica_is_promoted() {
    let world = World::new().await;
    let (left, follows) = (Movable::on(&world).await, Movable::on(&world).await);
    both_report(&world).await;
    let replica = replica_of(&world.redis).await;
    reopened(&world).await;
    left.serves().await;
    eventually("the replica has the charge", async || {
        let [primary, follower] = [&world.redis, &replica].map(async |server| {
            let info: String = send(server, &["INFO", "replication"]).await;
            info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).map(str::to_owned)
        });
        primary.await == follower.await
    })
    .await;
    let before = generation(&world).await;
    send::<()>(&replica, &["REPLICAOF", "NO", "ONE"]).await;
    follows.detour.lead_to(replica.port());
    follows.serves().await;
    left.is_refused().await;
    follows.serves().await;
    assert_eq!(generation(&world).await, before + 1, "the two do not take the partition from each other");
    left.detour.lead_to(replica.port());
    left.serves().await;
    left.under_test.flusher.flush_all().await.unwrap();
}

#[tokio::test]
async fn a_planned_move_to_a_replica_loses_nothing() {
    let world = World::new().await;
    let gates = [Movable::on(&world).await, Movable::on(&world).await];
    both_report(&world).await;
    let replica = replica_of(&world.redis).await;
    reopened(&world).await;
    gates[0].serves().await;
    for round in 0..20 {
        assert!(gates[round % 2].under_test.charges(&format!("user-{round}"), 3).await);
    }
    let to = replica.port().to_string();
    send::<()>(&world.redis, &["FAILOVER", "TO", "127.0.0.1", &to, "TIMEOUT", "10000"]).await;
    eventually("the replica is the primary", async || {
        send::<String>(&replica, &["INFO", "replication"]).await.contains("role:master")
    })
    .await;
    for gate in &gates {
        gate.detour.lead_to(replica.port());
        eventually("the gate serves from the replica", async || {
            matches!(gate.under_test.consume("user-0", 1).await, Ok(Decision::Allowed(_)))
        })
        .await;
    }
    gates[0].under_test.flush_and_verify().await;
    let logged = "select sum(ap_used)::bigint from chat_usage_logs where user_uuid like 'user-%'";
    assert_eq!(world.number(logged).await, 20 * 3 + 2);
}

#[tokio::test]
async fn a_generation_of_an_older_version_is_protected_from_the_first_start_on() {
    let world = World::new().await;
    drop(world.gate().await);
    for older in ["update flush_watermarks set fence = null", "delete from gates"] {
        sqlx::query(older).execute(&world.pool).await.unwrap();
    }
    let (stays, moves) = (Movable::on(&world).await, Movable::on(&world).await);
    assert_eq!(world.number("select count(*) from flush_watermarks where fence is null").await, 0);
    both_report(&world).await;
    // A gate of the older version opens the generation again, and leaves no fence.
    sqlx::query("update flush_watermarks set fence = '0 a:b'").execute(&world.pool).await.unwrap();
    let other = redis_like(&world.redis).await;
    moves.detour.lead_to(other.port());
    moves.is_refused().await;
    assert!(stays.under_test.charges("alice", 5).await);
    moves.detour.lead_to(world.redis.port());
    moves.serves().await;
    assert_eq!(generation(&world).await, 1);
}

fn options(world: &World, redis: &RedisServer) -> RuntimeOptions {
    RuntimeOptions::new(&world.database, &redis.url(), b"a secret of at least thirty-two bytes").unwrap()
}

#[tokio::test]
async fn all_gates_stop_and_start_with_an_empty_redis_and_nothing_is_lost() {
    let world = World::new().await;
    let first = Runtime::start(options(&world, &world.redis)).await.unwrap();
    first.gate().consume(consume("alice", 5)).await.unwrap();
    let other = redis_like(&world.redis).await;
    let Err(StartError::Partitions(error)) = Runtime::start(options(&world, &other)).await else {
        panic!("a gate starts with another Redis while the first one serves");
    };
    let said = error.to_string();
    let addresses = [&world.redis, &other].map(|redis| format!("127.0.0.1:{}", redis.port()));
    assert!(addresses.iter().all(|address| said.contains(address)) && !said.contains('@'), "{said}");
    first.shutdown(Duration::from_secs(20)).await;
    assert_eq!(world.number("select count(*) from gates").await, 0);

    let moved = Runtime::start(options(&world, &other)).await.unwrap();
    let Decision::Allowed(charged) = moved.gate().consume(consume("alice", 7)).await.unwrap() else { panic!("denied") };
    assert_eq!(charged.quota.used.get(), 12);
    moved.shutdown(Duration::from_secs(20)).await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 12);
}
