//! The system under test: a redis-server, a Postgres, and gate processes behind proxies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quota_gate::audit::verify::Verifier;
use quota_gate::{
    domain::partition::Partitions,
    gate::ReservationSigner,
    store::{
        postgres::{Postgres, PostgresOptions},
        redis::{Redis, RedisOptions},
    },
};
use quota_gate_dev::{
    Durability, Lifetime, PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions, ScratchDir,
};
use sha2::{Digest, Sha256};
use sqlx::{Executor, PgPool, Postgres as Postgresql, Transaction, postgres::PgPoolOptions};
use tokio::time::{Instant, sleep};

use crate::gate::Gate;
use crate::{cluster, plans::PLUS, proxy::Proxy};

pub(crate) const SERVICE_TOKEN: &str = "the token of a chat service";
pub(crate) const ADMIN_TOKEN: &str = "the token of an administrator";
pub(crate) const CRON_TOKEN: &str = "the token of the reset job";
const RESERVATION_SECRET: &str = "signs reservations, at least 32 bytes";
pub(crate) const PARTITIONS: u16 = 4;
/// Monthly quota of new users. Busy users reach it soon, most users do not.
pub(crate) const QUOTA: u32 = 100;

/// Longest wait for a server to reach a state.
pub(crate) const ASK_MAX: Duration = Duration::from_secs(20);

/// Servers and gates of one run, stopped on drop.
pub(crate) struct Installation {
    pub(crate) gates: Vec<Gate>,
    pub(crate) redis: RedisServer,
    pub(crate) postgres: PostgresServer,
    pub(crate) pool: PgPool,
    pub(crate) scratch: ScratchDir,
}

/// Options of an installation.
pub(crate) struct Options {
    pub(crate) gates: usize,
    pub(crate) redis: RedisServerOptions,
    pub(crate) postgres: PostgresServerOptions,
    /// Whether Redis is the first node of a cluster, with all slots.
    pub(crate) cluster: bool,
    /// Folders of the servers. The default is in the run's scratch folder.
    pub(crate) redis_dir: Option<PathBuf>,
    pub(crate) postgres_dir: Option<PathBuf>,
    /// Whether clients check the readiness of the gates.
    pub(crate) balanced: bool,
    /// The program of the gates, and of the migrations, if it is not the one under test. Then no client buys packs or
    /// changes plans, because an older program does not know them.
    pub(crate) program: Option<PathBuf>,
    /// Additional settings of the gates, as environment variables.
    pub(crate) settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gates: 2,
            redis: redis_options(),
            postgres: PostgresServerOptions {
                lifetime: Lifetime::Scratch,
                durability: Durability::Memory,
                ..Default::default()
            },
            cluster: false,
            redis_dir: None,
            postgres_dir: None,
            balanced: false,
            program: None,
            settings: Vec::new(),
        }
    }
}

impl Options {
    /// Adds a setting of the gates.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }
}

/// Returns the settings that the gates and their clients share.
pub(crate) fn shared_settings() -> Vec<(String, String)> {
    let hash = |token: &str| {
        format!("[\"{}\"]", Sha256::digest(token).iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}")))
    };
    let setting = |name: &str, value: String| (format!("QUOTA_GATE__{name}"), value);
    vec![
        setting("LEVELS__FREE", QUOTA.to_string()),
        setting("LEVELS__BASIC", (QUOTA + 100).to_string()),
        setting("LEVELS__PLUS", PLUS.to_owned()),
        setting("QUOTA__PARTITIONS", PARTITIONS.to_string()),
        setting("AUTH__JWT_SECRET", "signs the tokens of users, at least 32 bytes".to_owned()),
        setting("AUTH__JWT_ISSUER", "test".to_owned()),
        setting("AUTH__RESERVATION_SECRET", RESERVATION_SECRET.to_owned()),
        setting("AUTH__TOKENS__SERVICE__SHA256", hash(SERVICE_TOKEN)),
        setting("AUTH__TOKENS__SERVICE__SCOPES", "[consume, read]".to_owned()),
        setting("AUTH__TOKENS__ADMIN__SHA256", hash(ADMIN_TOKEN)),
        setting("AUTH__TOKENS__ADMIN__SCOPES", "[admin]".to_owned()),
        setting("AUTH__TOKENS__CRON__SHA256", hash(CRON_TOKEN)),
        setting("AUTH__TOKENS__CRON__SCOPES", "[reset]".to_owned()),
    ]
}

/// Returns a signer that reads reservation ids as the gates do.
pub(crate) fn signer() -> ReservationSigner {
    ReservationSigner::new(RESERVATION_SECRET.as_bytes()).expect("a valid secret")
}

impl Installation {
    pub(crate) async fn start(mut options: Options) -> anyhow::Result<Self> {
        // An older program does not know the setting.
        if options.program.is_none() {
            options = options.with("QUOTA_GATE__TRANSFERS__ENABLED", "true");
        }
        if options.cluster {
            options.redis.extra.extend(cluster::node_settings());
        }
        let scratch = ScratchDir::new()?;
        let dir = |given: Option<PathBuf>, name: &str| given.unwrap_or_else(|| scratch.path().join(name));
        let redis_dir = dir(options.redis_dir, "redis");
        let postgres_dir = dir(options.postgres_dir, "postgres");
        let (redis, postgres) = tokio::try_join!(
            RedisServer::start(&redis_dir, options.redis),
            PostgresServer::start(&postgres_dir, options.postgres),
        )?;
        if options.cluster {
            cluster::take_all_slots(&redis).await?;
        }
        let program = options.program.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_quota-gate")));
        migrate(&program, &postgres.url("postgres"))?;
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&postgres.url("postgres"))?;
        let mut this = Self { gates: Vec::new(), redis, postgres, pool, scratch };
        for _ in 0..options.gates {
            this.add_gate(&program, &options.settings).await?;
        }
        Ok(this)
    }

    async fn add_gate(&mut self, program: &Path, settings: &[(String, String)]) -> anyhow::Result<()> {
        let (redis, postgres) = (Proxy::before(self.redis.port()).await, Proxy::before(self.postgres.port()).await);
        let redis_url = self.redis.url().replace(&self.redis.port().to_string(), "{port}");
        let postgres_url = self.postgres.url("postgres").replace(&self.postgres.port().to_string(), "{port}");
        let log = self.scratch.path().join(format!("gate-{}.log", self.gates.len()));
        let gate = Gate::start((program, log), (redis, &redis_url), (postgres, &postgres_url), settings);
        self.gates.push(gate.await?);
        Ok(())
    }

    /// Sends a signal to every process of Postgres.
    pub(crate) fn signal_postgres(&self, signal: Signal) {
        signal_below(&self.postgres.data(), signal);
    }

    /// Sends a command to Redis directly, not through a proxy.
    pub(crate) async fn redis<T: redis::FromRedisValue>(&self, command: &[&str]) -> anyhow::Result<T> {
        ask(&self.redis, command).await
    }

    /// Starts another redis-server with the same password, so the gates' URL works for both.
    pub(crate) async fn another_redis(&self, name: &str, extra: Vec<String>) -> anyhow::Result<RedisServer> {
        let dir = self.scratch.path().join(name);
        fs::create_dir_all(&dir)?;
        fs::copy(self.redis.dir().join("password"), dir.join("password"))?;
        let options = RedisServerOptions { extra, ..redis_options() };
        Ok(RedisServer::start(&dir, options).await?)
    }

    /// Returns one number from Postgres.
    pub(crate) async fn number(&self, query: &'static str) -> anyhow::Result<i64> {
        let number: Option<i64> = sqlx::query_scalar(query).fetch_one(&self.pool).await?;
        Ok(number.unwrap_or_default())
    }

    /// Drops the last partition that the gates created ahead, and begins a transaction that reads the whole log. Until
    /// it ends, the partition cannot be created again.
    pub(crate) async fn long_reader(&self) -> anyhow::Result<Transaction<'static, Postgresql>> {
        let drop_last = "do $$ begin
            set local lock_timeout = '10s';
            execute format('drop table if exists %I', 'chat_usage_logs_'
                || to_char(date_trunc('month', now() at time zone 'UTC') + interval '3 months', 'YYYYMM'));
        end $$";
        self.pool.execute(drop_last).await?;
        let mut reader = self.pool.begin().await?;
        reader.execute("select count(*) from chat_usage_logs").await?;
        Ok(reader)
    }

    /// Counts the statements that wait for a lock of a table.
    pub(crate) async fn waiting_for_tables(&self) -> anyhow::Result<i64> {
        self.number("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and wait_event = 'relation'")
            .await
    }

    /// Returns a verifier that compares the stores directly, not through a proxy.
    pub(crate) fn verifier(&self) -> anyhow::Result<Verifier> {
        let redis = Redis::new(&RedisOptions {
            url: self.redis.url(),
            connections_max: 4,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
        })?;
        Ok(Verifier {
            redis,
            postgres: postgres_store(&self.postgres.url("postgres"))?,
            partitions: Partitions::new(PARTITIONS)?,
        })
    }

    /// Counts the openings of partitions after the first one of each.
    pub(crate) async fn reopened(&self) -> anyhow::Result<i64> {
        self.number("select sum(generation - 1)::bigint from flush_watermarks").await
    }
}

/// Options of a redis-server with the shipped accounts. The harness itself needs all rights.
pub(crate) fn redis_options() -> RedisServerOptions {
    RedisServerOptions {
        lifetime: Lifetime::Scratch,
        accounts: vec!["replica".into()],
        operator: true,
        ..RedisServerOptions::default()
    }
}

/// Sends a command to any redis-server, with all rights.
pub(crate) async fn ask<T: redis::FromRedisValue>(server: &RedisServer, command: &[&str]) -> anyhow::Result<T> {
    send(server, redis::Cmd::new().arg(command)).await
}

/// Like [`ask`], for arguments that are not text.
pub(crate) async fn send<T: redis::FromRedisValue>(server: &RedisServer, command: &redis::Cmd) -> anyhow::Result<T> {
    let client = redis::Client::open(server.operator_url())?;
    let mut connection = client.get_multiplexed_async_connection().await.context("Redis does not answer")?;
    Ok(command.query_async(&mut connection).await?)
}

/// Repeats a command until its answer contains this text.
pub(crate) async fn ask_until(server: &RedisServer, command: &[&str], has: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while !ask::<String>(server, command).await?.contains(has) {
        ensure!(began.elapsed() < ASK_MAX, "{} does not return {has}", command.join(" "));
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Brings the tables up to date, as this program knows them.
pub(crate) fn migrate(program: &Path, database_url: &str) -> anyhow::Result<()> {
    let output = Command::new(program).arg("migrate").env("DATABASE_URL", database_url).output()?;
    ensure!(output.status.success(), "migrate failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn postgres_store(url: &str) -> anyhow::Result<Postgres> {
    Ok(Postgres::new(&PostgresOptions {
        url: url.to_owned(),
        connections_max: 2,
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(30),
    })?)
}

/// Sends a signal to every process whose working directory is in this folder.
fn signal_below(dir: &Path, signal: Signal) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Copies a server's folder, including owners.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-rp").arg(from).arg(to).status()?;
    anyhow::ensure!(status.success(), "cannot copy {} to {}", from.display(), to.display());
    Ok(())
}
