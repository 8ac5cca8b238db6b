//! `quota-gate dev`: runs a gate to try, with a private Redis and Postgres.

mod demo;
mod plans;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing_subscriber::EnvFilter;

use self::demo::Demo;
use crate::cli::output::{note, say};
use crate::{
    app::{self, App},
    config::{Config, Secret, Token},
    hex,
    http::listener::listen,
    shutdown::{self, Hangup},
    telemetry::{self, LogFormat},
};
use quota_gate::{
    domain::{author::Author, clock::Clock, level::LevelName, level_change::Effective, scope::Scope, user_id::UserId},
    gate::ChangeLevel,
    jobs::log_partitions::MONTHS_AHEAD,
};
use quota_gate_dev::{DataDir, ModelServer, PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions};

/// Default directory of the data.
pub(in crate::cli) const DATA_DIR: &str = ".quota-gate";
/// Issuer of the JWTs of `quota-gate token`.
pub(in crate::cli) const JWT_ISSUER: &str = "quota-gate-dev";

/// The gate's Postgres role, in the operators' file.
const ROLE: &str = "quota_gate";
const ROLES: &str = include_str!("../../../../../deploy/postgres/roles.sql");

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Port to listen on at 127.0.0.1; 0 for any free port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Delete all data and start over.
    #[arg(long)]
    fresh: bool,
}

/// `DIR/dev.json`: URLs and secrets of a running `dev`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct DevFile {
    pub(in crate::cli) url: String,
    pub(in crate::cli) redis_url: String,
    pub(in crate::cli) database_url: String,
    pub(in crate::cli) service_token: String,
    pub(in crate::cli) admin_token: String,
    pub(in crate::cli) cron_token: String,
    pub(in crate::cli) jwt_secret: String,
}

/// `DIR/secrets.json`: created at the first start, so tokens stay valid after a restart.
#[derive(Debug, Serialize, Deserialize)]
struct Secrets {
    service_token: String,
    admin_token: String,
    cron_token: String,
    jwt_secret: String,
    reservation_secret: String,
    /// Of the gate's Postgres role.
    store_password: String,
}

pub(in crate::cli) async fn run(
    arguments: Arguments,
    data_dir: Option<PathBuf>,
    mut config: Config,
) -> anyhow::Result<ExitCode> {
    config.check_secret_files()?;
    let data_dir = data_dir.unwrap_or_else(|| DATA_DIR.into());
    telemetry::log(
        LogFormat::Text,
        telemetry::with_access_log(EnvFilter::new("warn,quota_gate=info"), config.telemetry.access_log),
        None,
    );
    let metrics = telemetry::metrics().context("cannot collect metrics")?;
    let cancelled = shutdown::on_signal(Hangup::Stops)?;
    let dir = if arguments.fresh { DataDir::open_fresh(&data_dir).await? } else { DataDir::open(&data_dir)? };
    // A killed `dev` leaves this file behind. Its contents are outdated.
    let path = dir.file("dev.json");
    let _ = fs::remove_file(&path);
    let address = SocketAddr::from(([127, 0, 0, 1], arguments.port));
    let listener = listen(address).with_context(|| {
        format!("cannot listen on {address}: stop the process that uses the port, or use `--port 0` for any free one")
    })?;
    let url = format!("http://{}", listener.local_addr()?);

    let secrets = Secrets::load_or_create(&dir.file("secrets.json"))?;
    let (redis_dir, postgres_dir) = (dir.redis(), dir.postgres());
    let (mut redis, mut postgres) = tokio::try_join!(
        RedisServer::start(&redis_dir, RedisServerOptions::default()),
        PostgresServer::start(&postgres_dir, PostgresServerOptions::default()),
    )?;
    secrets.configure(&mut config);
    plans::add(&mut config);
    // If no upstream is configured, start a local model.
    let _upstream = match config.upstream.url.as_str() {
        "" => Some(start_upstream(&mut config).await?),
        _ => None,
    };
    config.redis.url = Secret::new(redis.url());
    config.postgres.url = Secret::new(postgres.url("postgres"));
    // There is no load balancer that must notice the stop.
    config.server.stop_delay_ms = 0;

    let database = app::postgres(&config)?;
    database.migrate().await?;
    database.ensure_log_partitions(Clock::machine().now(), MONTHS_AHEAD).await?;
    database.close().await;
    // From here on, the gate has only the rights in Postgres that it has in production, as it has in Redis.
    postgres.run_script(ROLES, &[("password", &secrets.store_password)]).await?;
    config.postgres.url = Secret::new(postgres.url_of(ROLE, &secrets.store_password, "postgres"));
    let (redis_url, database_url) = (config.redis.url.expose().to_owned(), config.postgres.url.expose().to_owned());
    let packs = config.billing.packs()?;
    let app = App::build(config).await?;
    let samples = seed_sample_users(&app).await?;

    let file = DevFile {
        url,
        redis_url,
        database_url,
        service_token: secrets.service_token,
        admin_token: secrets.admin_token,
        cron_token: secrets.cron_token,
        jwt_secret: secrets.jwt_secret,
    };
    write_private(&path, &serde_json::to_string_pretty(&file)?)?;
    let demo = demo::routes(Demo {
        gate: app.gate.clone(),
        jwt_secret: file.jwt_secret.clone(),
        samples: samples.clone(),
        packs,
    });
    welcome(&file, &dir, &data_dir, &samples);

    let outcome = app.clone().run(listener, Some(metrics), demo, cancelled).await;
    // The gate has stopped, so its URLs are not valid any more.
    let _ = fs::remove_file(&path);
    tokio::join!(redis.stop(), postgres.stop());
    drop(dir);
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn start_upstream(config: &mut Config) -> anyhow::Result<ModelServer> {
    let key = random_hex()?;
    let upstream = ModelServer::start(&key).await.context("the local model server cannot listen")?;
    config.upstream.url = upstream.url();
    config.upstream.key = Secret::new(key);
    Ok(upstream)
}

/// Creates a user for each level, named after it, unless the user exists. Returns the users.
async fn seed_sample_users(app: &App) -> anyhow::Result<Vec<String>> {
    let mut samples = Vec::new();
    let levels = app.gate.levels();
    for level in levels.iter() {
        let user = UserId::parse(&format!("{}-user", level.name))?;
        samples.push(user.to_string());
        if app.gate.postgres().find(&user, Clock::machine().now()).await?.is_none() {
            let level = LevelName::parse(level.name.as_str())?;
            let author = Author::program("dev", Some("a sample user"))?;
            let effective = Effective::Now;
            app.gate
                .change_level(ChangeLevel { user, level, effective, anchor_day: None, if_version: None, author })
                .await?;
        }
    }
    Ok(samples)
}

fn welcome(file: &DevFile, dir: &DataDir, data_dir: &Path, samples: &[String]) {
    let program = std::env::args().next().unwrap_or_else(|| "quota-gate".into());
    let DevFile { url, service_token, admin_token, .. } = file;
    let data = data_dir.display();
    say!("\nQuota gate runs at {url}; open it in a browser to chat. Sample users: {}.\n", samples.join(", "));
    say!("Charge a message (as a chat service does):");
    say!("  curl -s {url}/api/chat/quota/consume -H 'Authorization: Bearer {service_token}' \\");
    say!(
        "    -H 'Content-Type: application/json' -d '{{\"userUuid\":\"free-user\",\"sessionId\":\"chat-1\",\"ap\":5}}'\n"
    );
    say!("Chat (as the user does, with any OpenAI client: base URL {url}/v1, the JWT as the API key):");
    say!(
        "  curl -sN {url}/v1/chat/completions -H \"Authorization: Bearer $({program} token free-user --data-dir {data})\" \\"
    );
    say!(
        "    -H 'Content-Type: application/json' -d '{{\"model\":\"local\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n"
    );
    say!("Show the quota (as the user does):");
    say!(
        "  curl -s {url}/api/chat/quota -H \"Authorization: Bearer $({program} token free-user --data-dir {data})\"\n"
    );
    say!("Change the level (as an administrator does):");
    say!("  curl -s -X PUT {url}/api/chat/quota/level -H 'Authorization: Bearer {admin_token}' \\");
    say!("    -H 'Content-Type: application/json' -d '{{\"userUuid\":\"free-user\",\"membershipLevel\":\"plus\"}}'\n");
    say!("Show every message (as an administrator does): open {url}/admin with the token {admin_token}\n");
    say!("URLs of Redis and Postgres, and all tokens: {}", dir.file("dev.json").display());
    if let Some(elsewhere) = dir.elsewhere() {
        say!(
            "The data of Redis and Postgres is in {}: they run as another account, which cannot enter this directory.",
            elsewhere.display()
        );
    }
    say!("Ctrl-C stops everything and keeps the data.\n");
}

/// Makes a command use the stores and secrets of a running `dev`: that in `data_dir`, or else that in .quota-gate if
/// neither store is configured.
///
/// # Errors
/// If no `dev` runs in `data_dir`.
pub(in crate::cli) fn use_running(config: &mut Config, data_dir: Option<&Path>) -> anyhow::Result<()> {
    let default = Path::new(DATA_DIR);
    let configured = !(config.redis.url.is_empty() && config.postgres.url.is_empty());
    let dir = match data_dir {
        Some(dir) => dir,
        None if configured || !default.join("dev.json").exists() => return Ok(()),
        None => {
            note!("no store is configured: using those of the `quota-gate dev` in {}", default.display());
            default
        }
    };
    let file = DevFile::read(dir)?;
    Secrets::load(&dir.join("secrets.json"))?.configure(config);
    plans::add(config);
    config.redis.url = Secret::new(file.redis_url);
    config.postgres.url = Secret::new(file.database_url);
    config.server.listen = file.url.trim_start_matches("http://").parse().context("dev.json has an invalid URL")?;
    Ok(())
}

impl DevFile {
    /// Reads the file of a running `dev`.
    pub(in crate::cli) fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("dev.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: is `quota-gate dev` running?", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged: restart `quota-gate dev`", path.display()))
    }
}

impl Secrets {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged or of another version: --fresh deletes all data and starts over", path.display())
        })
    }

    fn load_or_create(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            return Self::load(path);
        }
        let secrets = Self {
            service_token: random_hex()?,
            admin_token: random_hex()?,
            cron_token: random_hex()?,
            jwt_secret: random_hex()?,
            reservation_secret: random_hex()?,
            store_password: random_hex()?,
        };
        write_private(path, &serde_json::to_string_pretty(&secrets)?)?;
        Ok(secrets)
    }

    fn configure(&self, config: &mut Config) {
        let auth = &mut config.auth;
        auth.jwt_secret = Secret::new(&self.jwt_secret);
        auth.reservation_secret = Secret::new(&self.reservation_secret);
        JWT_ISSUER.clone_into(&mut auth.jwt_issuer);
        let token = |secret: &str, scopes: &[Scope]| Token { sha256: vec![sha256(secret)], scopes: scopes.to_vec() };
        auth.tokens = BTreeMap::from([
            ("service".to_owned(), token(&self.service_token, &[Scope::Consume, Scope::Read])),
            ("admin".to_owned(), token(&self.admin_token, &[Scope::Admin])),
            ("cron".to_owned(), token(&self.cron_token, &[Scope::Reset])),
        ]);
    }
}

/// Writes a file that only its owner can read, completely or not at all.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text)
        .and_then(|()| fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)))
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("cannot get random bytes")?;
    Ok(hex::encode(&bytes))
}

fn sha256(token: &str) -> String {
    hex::encode(&Sha256::digest(token))
}
