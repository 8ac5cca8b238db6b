//! `quota-gate doctor`: looks at the configuration and both stores, and says what to change.

use std::process::ExitCode;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    app,
    config::{Config, ConfigError},
};
use quota_gate::{
    domain::clock::Clock,
    gate::ReservationSigner,
    store::{
        postgres::{POSTGRES_VERSION_MIN, PostgresServerInfo, Settings},
        redis::RedisServerInfo,
    },
};

/// Further apart than this, nobody decides.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(60);
/// People should look before it is full.
const MEMORY_SHARE_MAX: u64 = 80;

/// What was found: what is good is told too, so that people see what was looked at.
#[derive(Default)]
struct Findings {
    good: usize,
    advice: usize,
    wrong: usize,
}

impl Findings {
    fn good(&mut self, what: &str) {
        self.good += 1;
        println!("ok     {what}");
    }

    /// A gate would not start, lose charges, or let people in.
    fn wrong(&mut self, what: &str, todo: &str) {
        self.wrong += 1;
        println!("WRONG  {what}: {todo}");
    }

    /// It works, and could be better.
    fn advice(&mut self, what: &str, todo: &str) {
        self.advice += 1;
        println!("advice {what}: {todo}");
    }

    fn check(&mut self, is_good: bool, good: &str, wrong: &str, todo: &str) {
        if is_good {
            self.good(good);
        } else {
            self.wrong(wrong, todo);
        }
    }
}

pub(super) async fn run(config: Result<Config, ConfigError>) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    match config {
        Ok(config) => {
            findings.good("the configuration can be read");
            configuration(&config, &mut findings);
            let redis = redis(&config, &mut findings).await;
            let postgres = postgres(&config, &mut findings).await;
            if let (Some(redis), Some(postgres)) = (redis, postgres) {
                clocks(&redis, &postgres, &mut findings);
            }
        }
        Err(error) => findings.wrong("the configuration cannot be read", &error.to_string()),
    }
    let Findings { good, advice, wrong } = findings;
    println!("{good} good, {advice} to think about, {wrong} to change");
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configuration(config: &Config, findings: &mut Findings) {
    let auth = &config.auth;
    let secret = auth.reservation_secret.expose();
    findings.check(
        ReservationSigner::new(secret.as_bytes()).is_ok(),
        "auth.reservation_secret is long enough",
        "auth.reservation_secret is missing or shorter than 32 bytes",
        "`openssl rand -hex 32` makes one; all gates share it",
    );
    findings.check(
        auth.jwt_secret.expose().len() >= 32 || !auth.jwks.is_empty(),
        "users' JWTs can be checked",
        "no user can be known: auth.jwt_secret is missing or shorter than 32 bytes, and auth.jwks is empty",
        "set one of them, and auth.jwt_issuer",
    );
    findings.check(
        !auth.tokens.is_empty(),
        "there are tokens for services",
        "no service may ask: there is no [auth.tokens.ID]",
        "give each service a token with its scopes",
    );
    match (config.levels(), config.partitions(), config.time_zone()) {
        (Ok(_), Ok(_), Ok(_)) => findings.good("levels, partitions and time zone are valid"),
        (levels, partitions, zone) => {
            let errors = [
                levels.err().map(|e| e.to_string()),
                partitions.err().map(|e| e.to_string()),
                zone.err().map(|e| e.to_string()),
            ];
            findings
                .wrong("[levels] or [quota] is invalid", &errors.into_iter().flatten().collect::<Vec<_>>().join("; "));
        }
    }
    if !config.flusher.enabled {
        findings.advice("flusher.enabled is off here", "some gate has to carry usage to Postgres");
    }
    if !config.resetter.enabled {
        findings.advice("resetter.enabled is off here", "a cron job has to post to /api/chat/quota/reset");
    }
}

async fn redis(config: &Config, findings: &mut Findings) -> Option<RedisServerInfo> {
    let server_info = async { anyhow::Ok(app::redis(config)?.server_info().await?) };
    let server_info = match server_info.await {
        Ok(server_info) => server_info,
        Err(error) => {
            findings.wrong(
                "Redis does not answer",
                &format!("{error:#}: is REDIS_URL right, and may its user do what deploy/redis/users.acl says?"),
            );
            return None;
        }
    };
    match server_info.unfit() {
        Some(wrong) => findings.wrong("Redis is not fit to keep charges", &wrong),
        None => findings.good(&format!("Redis {} is a primary that evicts nothing", server_info.version)),
    }
    findings.check(
        server_info.appendonly,
        "Redis writes down what it is told",
        "Redis runs without appendonly",
        "set appendonly yes and appendfsync everysec, or a restart loses every charge that is not flushed yet",
    );
    if server_info.maxmemory == 0 {
        findings.advice(
            "Redis has no maxmemory",
            "set one below the machine's memory, so that it refuses before the system kills it",
        );
    } else if server_info.used_memory * 100 > server_info.maxmemory * MEMORY_SHARE_MAX {
        findings.wrong(
            &format!("Redis uses {} of {} bytes", server_info.used_memory, server_info.maxmemory),
            "raise maxmemory, or find out why the streams are long",
        );
    }
    findings.check(
        !server_info.may_administer,
        "its user may do what the gate needs and no more",
        "the gate's user may change Redis' own settings",
        "use the user of deploy/redis/users.acl",
    );
    Some(server_info)
}

async fn postgres(config: &Config, findings: &mut Findings) -> Option<PostgresServerInfo> {
    let postgres = match app::postgres(config) {
        Ok(postgres) => postgres,
        Err(error) => {
            findings.wrong("Postgres cannot be asked", &format!("{error:#}"));
            return None;
        }
    };
    if let Err(error) = postgres.check_schema().await {
        findings.wrong("Postgres is not ready", &format!("{error:#}"));
        return None;
    }
    let server_info = match postgres.server_info(Clock::machine().now()).await {
        Ok(server_info) => server_info,
        Err(error) => {
            findings.wrong("Postgres cannot be looked at", &error.to_string());
            return None;
        }
    };
    let version = server_info.version / 10_000;
    findings.check(
        server_info.version >= POSTGRES_VERSION_MIN && server_info.is_primary,
        &format!("Postgres {version} is a primary with up-to-date tables"),
        &format!("Postgres {version} is too old, or a standby"),
        "use a primary of version 15 or newer",
    );
    findings.check(
        server_info.fsync,
        "its commits are on disk",
        "Postgres runs with fsync off",
        "set fsync on: a crash would lose what Redis has forgotten",
    );
    let PostgresServerInfo { role, .. } = &server_info;
    findings.check(
        !(server_info.is_superuser || server_info.may_rewrite_log || server_info.may_create),
        &format!("the role {role} may do what the gate needs and no more"),
        &format!("the role {role} may rewrite the usage log, or make tables"),
        "use the role of deploy/postgres/roles.sql",
    );
    findings.check(
        server_info.has_log_partitions,
        "the log has partitions of this month and the next",
        "the log lacks a partition of this month or the next",
        "run `quota-gate reset`, or let a gate's resetter run",
    );
    if server_info.rows_in_default_partition {
        findings.advice(
            "rows are in the log's default partition",
            "ensure_usage_log_partition moves them; `quota-gate reset` calls it",
        );
    }
    let wanted = config.partitions().ok().zip(config.time_zone().ok());
    if let Some((partitions, time_zone)) = wanted {
        match postgres.compare_settings(&Settings { partitions, time_zone }).await {
            Ok(()) => findings.good("partitions and time zone are those of the installation"),
            Err(error) => findings.wrong("this is another installation", &error.to_string()),
        }
    }
    Some(server_info)
}

fn clocks(redis: &RedisServerInfo, postgres: &PostgresServerInfo, findings: &mut Findings) {
    let now: DateTime<Utc> = Clock::machine().now();
    for (store, time) in [("Redis", redis.time), ("Postgres", postgres.time)] {
        let apart = (time - now).abs();
        findings.check(
            apart <= SKEW_MAX,
            &format!("the clock of {store} is this machine's"),
            &format!("the clock of {store} is {} seconds from this machine's", apart.num_seconds()),
            "mend NTP",
        );
    }
}
