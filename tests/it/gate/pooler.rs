//! Gates behind a real PgBouncer, in both modes. Its few server sessions are shared by all clients.

use std::str::FromStr;

use futures_util::future::join_all;
use quota_gate::{
    domain::{ap::Ap, decision::Decision, usage::Tokens},
    gate::Commit,
    jobs::resetter::Trigger,
    store::postgres::{Postgres, PostgresOptions, Route},
};
use quota_gate_dev::{PgBouncer, PgBouncerOptions, PoolMode};
use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::support::{World, eventually, execute, migrated_copy, postgres, repeat, reserve, scratch};

/// PgBouncer's usual answer to start-up options is an error; many installations ignore them instead.
const IGNORED: &str = "ignore_startup_parameters = options";

async fn pgbouncer(server_url: &str, pool_mode: PoolMode, extra: &[&str]) -> PgBouncer {
    let extra = extra.iter().map(|line| (*line).to_owned()).collect();
    let options = PgBouncerOptions { pool_mode, extra };
    PgBouncer::start(&scratch("pgbouncer"), server_url, options).await.expect("PgBouncer starts")
}

fn postgres_at(url: &str) -> Postgres {
    Postgres::new(&PostgresOptions { connections_max: 4, ..PostgresOptions::new(url) }).unwrap()
}

/// A world whose gates reach Postgres through PgBouncer, and the direct URL. The world itself is connected directly.
async fn behind(pool_mode: PoolMode, extra: &[&str]) -> (World, PgBouncer, String) {
    let mut world = World::new().await;
    let pgbouncer = pgbouncer(&world.database, pool_mode, extra).await;
    let direct = world.database.clone();
    world.database = pgbouncer.url(&direct);
    (world, pgbouncer, direct)
}

async fn gates_work(pool_mode: PoolMode, extra: &[&str]) {
    let (mut world, mut pgbouncer, _) = behind(pool_mode, extra).await;
    let (one, two) = (world.gate_with(|tuning| tuning.postgres_connections = 3).await, world.gate().await);
    assert_eq!(one.postgres.route().await.unwrap(), Route::Pooled);
    let cancelled = tokio_util::sync::CancellationToken::new();
    let jobs: Vec<_> = [&one, &two].map(|gate| tokio::spawn(repeat(gate.flusher.clone(), &cancelled))).into();

    // Cold users on both gates, while both flush.
    let users: Vec<String> = (0..60).map(|number| format!("user-{number}")).collect();
    let charged = join_all(users.iter().map(|user| async { one.charges(user, 1).await && two.charges(user, 2).await }));
    assert!(charged.await.iter().all(|charged| *charged));
    let Decision::Allowed(held) = one.gate.reserve(reserve("user-1", 5, 60)).await.unwrap() else {
        panic!("the hold is denied");
    };
    let commit = Commit { ap: Some(Ap::new(4)), tokens: Tokens::default(), model: None };
    two.gate.commit(&one.gate.reservation_id(&held.reservation), commit).await.unwrap();

    // An opening, with usage that is not flushed.
    world.redis.restart().await.unwrap();
    eventually("the gate decides again", async || one.consume("user-2", 1).await.is_ok()).await;
    // A restart of PgBouncer.
    pgbouncer.restart().await.unwrap();
    eventually("Postgres answers again", async || two.postgres.ping().await.is_ok()).await;
    eventually("cold users are loaded", async || two.consume("new", 1).await.is_ok()).await;

    cancelled.cancel();
    for job in jobs {
        job.await.unwrap();
    }
    eventually("everything is flushed", async || one.flusher.flush_all().await.is_ok()).await;
    one.flush_and_verify().await;
    assert!(two.resetter.run(Trigger::Schedule).await.unwrap().failed_count == 0);
    assert_eq!(world.number("select sum(monthly_used)::bigint from chat_quotas").await, 3 * 60 + 4 + 1 + 1);
}

#[tokio::test]
async fn gates_work_behind_a_pooler_of_sessions() {
    gates_work(PoolMode::Session, &[]).await;
}

#[tokio::test]
async fn gates_work_behind_a_pooler_of_transactions() {
    gates_work(PoolMode::Transaction, &["default_pool_size = 3"]).await;
}

#[tokio::test]
async fn gates_work_behind_a_pooler_that_drops_start_up_options() {
    gates_work(PoolMode::Transaction, &["default_pool_size = 3", IGNORED]).await;
}

#[tokio::test]
async fn commits_are_durable_whatever_other_clients_leave_in_a_session() {
    for extra in [&[][..], &[IGNORED]] {
        let mut lines = vec!["default_pool_size = 1"];
        lines.extend_from_slice(extra);
        let (world, _pgbouncer, direct) = behind(PoolMode::Transaction, &lines).await;
        let name = direct.rsplit_once('/').unwrap().1;
        execute(&direct, &format!("alter database {name} set synchronous_commit = off")).await;
        // With one server session, the gate gets the one in which this client leaves its settings.
        let spoil = "set synchronous_commit = off; set search_path = ''; set statement_timeout = 1; \
                     prepare sqlx_s_1 as select 1; prepare sqlx_s_2 as select 2";
        let options = PgConnectOptions::from_str(&world.database).unwrap().extra_float_digits(None);
        let mut other = PgConnection::connect_with(&options).await.unwrap();
        other.execute(spoil).await.unwrap();
        let gate = world.gate().await;
        let info = gate.postgres.server_info(world.clock.now()).await.unwrap();
        assert_eq!(info.synchronous_commit, "on");
        assert!(gate.charges("alice", 5).await);
        gate.flush_and_verify().await;
    }
}

#[tokio::test]
async fn commits_are_durable_on_a_direct_connection_to_a_database_that_defaults_to_off() {
    let world = World::new().await;
    let name = world.database.rsplit_once('/').unwrap().1;
    execute(&world.database, &format!("alter database {name} set synchronous_commit = off")).await;
    let gate = world.gate().await;
    assert_eq!(gate.postgres.route().await.unwrap(), Route::Direct);
    assert_eq!(gate.postgres.server_info(world.clock.now()).await.unwrap().synchronous_commit, "on");
}

#[tokio::test]
async fn options_that_a_pooler_would_drop_are_refused() {
    let (world, _pgbouncer, _) = behind(PoolMode::Transaction, &[IGNORED]).await;
    let postgres = postgres_at(&format!("{}?options[search_path]=quota", world.database));
    let error = postgres.ping().await.unwrap_err().to_string();
    assert!(error.contains("DATABASE_URL has `options`"), "{error}");
}

#[tokio::test]
async fn migrations_run_once_through_a_pooler() {
    let server = postgres().await;
    server.create_database("fresh").await.unwrap();
    let direct = server.url("fresh");
    let pgbouncer = pgbouncer(&direct, PoolMode::Transaction, &["default_pool_size = 2"]).await;
    let stores: Vec<_> = (0..3).map(|_| postgres_at(&pgbouncer.url(&direct))).collect();
    for outcome in join_all(stores.iter().map(Postgres::migrate)).await {
        outcome.unwrap();
    }
    for store in &stores {
        store.check_schema().await.unwrap();
        store.migrate().await.unwrap();
    }
}

#[tokio::test]
async fn the_lock_of_repairs_ends_with_its_holder_behind_a_pooler() {
    let (world, _pgbouncer, _) = behind(PoolMode::Transaction, &["default_pool_size = 3"]).await;
    let postgres = postgres_at(&world.database);
    let lock = postgres.try_lock_repairs().await.unwrap().expect("a free lock");
    assert!(postgres.try_lock_repairs().await.unwrap().is_none());
    drop(lock);
    eventually("the lock is free", async || postgres.try_lock_repairs().await.unwrap().is_some()).await;
}

#[tokio::test]
async fn a_migration_does_not_keep_others_waiting_behind_a_long_reader() {
    let server = postgres().await;
    let url = migrated_copy(&server).await;
    execute(&url, "delete from _sqlx_migrations where version = 31; drop table schema_compatibility").await;
    let mut reader = PgConnection::connect(&url).await.unwrap();
    // Within one transaction, pg_stat_activity does not change.
    let mut observer = PgConnection::connect(&url).await.unwrap();
    reader.execute("begin; lock table _sqlx_migrations in access exclusive mode").await.unwrap();
    let store = postgres_at(&url);
    let migrating = tokio::spawn(async move { store.migrate().await });
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    for (what, expected) in [("the migration waits", 1), ("it lets others pass", 0)] {
        eventually(what, async || {
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut observer).await.unwrap();
            count == expected
        })
        .await;
    }
    reader.execute("commit").await.unwrap();
    migrating.await.unwrap().unwrap();
}
