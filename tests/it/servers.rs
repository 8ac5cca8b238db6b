//! The versions of Redis, Valkey and Postgres that docs/operations.md calls tested, each with a short life of a gate.
//! `make test-servers` runs more on each.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use quota_gate::{
    domain::decision::Decision,
    gate::{Commit, Consume},
};
use quota_gate_dev::{PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions};
use tokio::process::Command;

use crate::support::{
    World, consume, eventually, key, migrated_copy, postgres_options, redis_options, reserve, scratch, user,
};

/// Each server that `scripts/prepare-servers` installs, and the version that it must report.
const PAIRS: [(&str, &str, &str, i32); 4] = [
    ("valkey-9", "Valkey 9.", "postgres-15", 15),
    ("redis-8", "Redis 8.", "postgres-16", 16),
    ("valkey-9", "Valkey 9.", "postgres-17", 17),
    ("redis-8", "Redis 8.", "postgres-18", 18),
];

/// Installs the servers; returns their folder, or `None` if there are none for this platform.
async fn prepared() -> Option<PathBuf> {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/prepare-servers"));
    let output = Command::new(script).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the servers cannot be installed: {error}");
    let folder = String::from_utf8(output.stdout).unwrap();
    Some(folder.trim()).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

#[tokio::test]
async fn every_tested_server_keeps_unflushed_charges_and_answers_over_a_restart() {
    let Some(servers) = prepared().await else { return };
    join_all(PAIRS.map(|(redis, product, postgres, version)| {
        lives(servers.join(redis).join("redis-server"), product, servers.join(postgres), version)
    }))
    .await;
}

async fn lives(redis: PathBuf, product: &str, postgres: PathBuf, version: i32) {
    let postgres_options = PostgresServerOptions { programs: Some(postgres), ..postgres_options() };
    let mut postgres = PostgresServer::start(&scratch("postgres"), postgres_options).await.unwrap();
    let redis_options = RedisServerOptions { program: Some(redis), ..redis_options() };
    let redis = RedisServer::start(&scratch("redis"), redis_options).await.unwrap();
    let mut world = World::of_stores(redis, migrated_copy(&postgres).await);
    let gate = world.gate().await;
    let server = gate.redis.server_info().await.unwrap();
    assert!(server.product.starts_with(product) && server.unfit().is_none(), "{server:?}");
    let rights = gate.redis.rights().await.unwrap();
    assert_eq!((rights.may_replay, rights.may_administer, rights.may_reuse_connections), (Some(true), false, true));
    forget_refusals(&world).await;
    assert_eq!(gate.postgres.server_info(world.clock.now()).await.unwrap().version / 10_000, version);

    assert!(gate.charges("alice", 50).await);
    gate.flush_and_verify().await;
    let request = Consume { idempotency_key: Some(key("k1")), ..consume("alice", 7) };
    let Decision::Allowed(first) = gate.gate.consume(request.clone()).await.unwrap() else { panic!("denied") };
    let Decision::Allowed(held) = gate.gate.reserve(reserve("alice", 10, 600)).await.unwrap() else { panic!("denied") };
    world.redis.restart().await.unwrap();
    postgres.restart().await.unwrap();
    eventually("the gate answers again", async || gate.gate.quota_and_holds(&user("alice")).await.is_ok()).await;
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().used.get(), 57, "{product} kept the unflushed charge");
    let Decision::Allowed(again) = gate.gate.consume(request).await.unwrap() else { panic!("denied") };
    assert_eq!((again.replayed, again.event), (true, first.event), "{product} kept the answer");
    let id = gate.gate.reservation_id(&held.reservation);
    let charged = gate.gate.commit(&id, Commit::default()).await.unwrap().now().unwrap();
    assert_eq!((charged.charged.get(), charged.quota.used.get()), (10, 67), "{product}: the hold is charged once");
    assert!(!gate.charges("alice", 34).await && gate.charges("alice", 33).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 100);
    let refusals: Vec<redis::Value> =
        redis::cmd("ACL").arg("LOG").query_async(&mut world.redis_connection().await).await.unwrap();
    assert!(refusals.is_empty(), "{product} refused the gate's account a call: {refusals:?}");
}

/// `rights` tries what the gate's account may not do.
async fn forget_refusals(world: &World) {
    let mut reset = redis::cmd("ACL");
    reset.arg("LOG").arg("RESET").exec_async(&mut world.redis_connection().await).await.unwrap();
}
