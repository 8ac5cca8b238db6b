//! A Redis and a Postgres for one benchmark, started as `dev` does and configured as docs/operations.md requires.

use std::{sync::Arc, time::Duration};

use quota_gate::{
    domain::user_id::{SessionId, UserId},
    gate::Gate,
    jobs::{
        flusher::{Flusher, FlusherOptions},
        job,
    },
};
use quota_gate_dev::{
    Durability, Lifetime, PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions, ScratchDir,
};
use quota_gate_server::{
    app::App,
    config::{Config, LevelSection, Secret},
};
use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Scale;

/// A quota that no benchmark uses up.
pub(crate) const QUOTA: u32 = 2_000_000_000;

/// Two stores, stopped on drop.
pub(crate) struct Stores {
    pub(crate) redis: RedisServer,
    pub(crate) postgres: PostgresServer,
    pub(crate) scratch: ScratchDir,
}

impl Stores {
    /// Starts Redis with its append-only file, and Postgres with every commit on disk (except for a smoke test).
    pub(crate) async fn start(scale: Scale) -> anyhow::Result<Self> {
        let scratch = ScratchDir::new()?;
        let redis = redis_server(&scratch).await?;
        let durability = scale.of(Durability::Memory, Durability::Disk, Durability::Disk);
        // Several times the defaults, as is usual for a Postgres with a gigabyte of memory.
        let extra = ["shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min", "max_connections=100"];
        let options = PostgresServerOptions {
            durability,
            lifetime: Lifetime::Scratch,
            extra: extra.map(str::to_owned).to_vec(),
            ..PostgresServerOptions::default()
        };
        let postgres = PostgresServer::start(&scratch.path().join("postgres"), options).await?;
        Ok(Self { redis, postgres, scratch })
    }

    /// Returns the configuration of a gate on these stores.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(None)?;
        config.redis.url = Secret::new(self.redis.url());
        config.postgres.url = Secret::new(self.postgres.url("postgres"));
        config.auth.reservation_secret = Secret::new("a secret of at least thirty-two bytes");
        config.flusher.enabled = false;
        config.resetter.enabled = false;
        Ok(config)
    }

    /// Builds a gate in this process.
    pub(crate) async fn app(&self) -> anyhow::Result<App> {
        self.app_with_levels(&[("bench", QUOTA)]).await
    }

    /// Like [`Self::app`], with these levels.
    pub(crate) async fn app_with_levels(&self, levels: &[(&str, u32)]) -> anyhow::Result<App> {
        let mut config = self.config()?;
        config.levels = levels.iter().map(|&(name, quota)| (name.to_owned(), LevelSection::Quota(quota))).collect();
        quota_gate_server::app::postgres(&config)?.migrate().await?;
        App::build(config).await
    }

    /// Opens a connection to Redis with all rights.
    pub(crate) async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        Ok(redis::Client::open(self.redis.operator_url())?.get_multiplexed_async_connection().await?)
    }

    /// Opens connections to Postgres.
    pub(crate) async fn pool(&self) -> anyhow::Result<PgPool> {
        Ok(PgPool::connect(&self.postgres.url("postgres")).await?)
    }
}

/// Starts only Redis.
pub(crate) async fn redis_server(scratch: &ScratchDir) -> anyhow::Result<RedisServer> {
    // The benchmark decides when to rewrite the file: see `compact`.
    let extra = vec!["auto-aof-rewrite-percentage 0".to_owned()];
    let options =
        RedisServerOptions { lifetime: Lifetime::Scratch, operator: true, extra, ..RedisServerOptions::default() };
    Ok(RedisServer::start(&scratch.path().join("redis"), options).await?)
}

/// Runs statements that take no parameters.
pub(crate) async fn run_sql(pool: &PgPool, statements: &str) -> anyhow::Result<()> {
    pool.execute(AssertSqlSafe(statements.to_owned())).await?;
    Ok(())
}

/// Rewrites Redis' append-only file, which has become too long. An automatic rewrite, when its size has doubled, would
/// disturb a round.
pub(crate) async fn compact(redis: &mut MultiplexedConnection) -> anyhow::Result<()> {
    redis::cmd("BGREWRITEAOF").exec_async(redis).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let info: String = redis::cmd("INFO").arg("persistence").query_async(redis).await?;
        if info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0") {
            return Ok(());
        }
    }
}

/// Deletes the journal, for benchmarks of the steps before it.
pub(crate) async fn forget_journal(redis: &mut MultiplexedConnection) -> anyhow::Result<()> {
    let streams: Vec<String> = redis::cmd("KEYS").arg("qg:*:ev:*").query_async(redis).await?;
    for stream in streams {
        let () = redis::cmd("XTRIM").arg(stream).arg("MAXLEN").arg(1).query_async(redis).await?;
    }
    Ok(())
}

/// Returns users, the same in every run, with UUIDs as in products.
pub(crate) fn users(count: usize) -> Arc<[UserId]> {
    (0..count).map(user).collect()
}

/// Returns one of the users.
pub(crate) fn user(number: usize) -> UserId {
    let uuid = Uuid::new_v8((number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
    UserId::parse(&uuid.to_string()).expect("a UUID is a user id")
}

pub(crate) fn session() -> SessionId {
    SessionId::parse("chat-42").expect("a session id")
}

/// Loads users into Redis, so that later requests measure the hot path.
pub(crate) async fn warm(gate: &Gate, users: &[UserId]) -> anyhow::Result<()> {
    for chunk in users.chunks(1_000) {
        futures_util::future::try_join_all(chunk.iter().map(|user| gate.quota(user))).await?;
    }
    Ok(())
}

/// Returns the flusher of a gate, with its default options.
pub(crate) fn flusher(app: &App) -> Flusher {
    Flusher::new(app.gate.clone(), FlusherOptions::default())
}

/// Flushes until cancelled.
pub(crate) fn keep_flushing(app: &App, stop: &CancellationToken) -> JoinHandle<()> {
    let (flusher, stop) = (flusher(app), stop.clone());
    tokio::spawn(async move { job::repeat(flusher, stop, &|_| {}).await })
}
