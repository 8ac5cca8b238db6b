//! `quota-gate doctor`: checks the configuration and both stores, and prints what to change.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

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

/// If clocks differ by more than this, gates refuse to decide.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(60);
/// Age of a heartbeat of a running gate. It sends one every second.
const SEEN_WITHIN: Duration = Duration::from_secs(3);
/// Used share of `maxmemory`, in percent, above which it is reported, before it is full.
const MEMORY_SHARE_MAX: u64 = 80;

/// Counts of the findings. Passed checks are printed too, so people see what was checked.
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

    /// Reports an error: a gate would not start, would lose charges, or would be insecure.
    fn wrong(&mut self, what: &str, todo: &str) {
        self.wrong += 1;
        println!("WRONG  {what}: {todo}");
    }

    /// Reports something that works but could be better.
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
            one_redis(&config, &mut findings).await;
            if let (Some(redis), Some(postgres)) = (redis, postgres) {
                clocks(&redis, &postgres, &mut findings);
            }
        }
        Err(error) => findings.wrong("the configuration cannot be read", &error.to_string()),
    }
    let Findings { good, advice, wrong } = findings;
    println!("{good} ok, {advice} advice, {wrong} wrong");
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configuration(config: &Config, findings: &mut Findings) {
    let auth = &config.auth;
    let secret = auth.reservation_secret.expose();
    findings.check(
        ReservationSigner::new(secret.as_bytes()).is_ok(),
        "auth.reservation_secret is long enough",
        "auth.reservation_secret is missing or shorter than 32 bytes",
        "create one with `openssl rand -hex 32`, the same for all gates",
    );
    findings.check(
        auth.jwt_secret.expose().len() >= 32 || !auth.jwks.is_empty(),
        "users' JWTs can be verified",
        "users' JWTs cannot be verified: auth.jwt_secret is missing or shorter than 32 bytes, and auth.jwks is empty",
        "set one of them, and auth.jwt_issuer",
    );
    findings.check(
        !auth.tokens.is_empty(),
        "services have tokens",
        "no service can use the gate: there is no [auth.tokens.ID]",
        "add a token with its scopes for each service",
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
        findings.advice("flusher.enabled is false here", "at least one gate must flush usage to Postgres");
    }
    if !config.resetter.enabled {
        findings.advice("resetter.enabled is false here", "a cron job must post to /api/chat/quota/reset");
    }
}

async fn redis(config: &Config, findings: &mut Findings) -> Option<RedisServerInfo> {
    let server_info = async { anyhow::Ok(app::redis(config)?.server_info().await?) };
    let server_info = match server_info.await {
        Ok(server_info) => server_info,
        Err(error) => {
            findings.wrong(
                "Redis does not answer",
                &format!("{error:#}: check REDIS_URL, and that its user has the rights of deploy/redis/users.acl"),
            );
            return None;
        }
    };
    match server_info.unfit() {
        Some(wrong) => findings.wrong("Redis is not suitable for the gate", &wrong),
        None => findings.good(&format!("Redis {} is a primary with maxmemory-policy noeviction", server_info.version)),
    }
    findings.check(
        server_info.appendonly,
        "Redis runs with appendonly",
        "Redis runs without appendonly",
        "set appendonly yes and appendfsync everysec; otherwise a restart loses every charge that is not flushed yet",
    );
    if server_info.maxmemory == 0 {
        findings.advice(
            "Redis has no maxmemory",
            "set it below the machine's memory, so that Redis refuses writes before the system kills it",
        );
    } else if server_info.used_memory * 100 > server_info.maxmemory * MEMORY_SHARE_MAX {
        findings.wrong(
            &format!("Redis uses {} of {} bytes of maxmemory", server_info.used_memory, server_info.maxmemory),
            "raise maxmemory, or find out why the usage streams are long",
        );
    }
    findings.check(
        !server_info.may_administer,
        "the gate's Redis user has no more rights than the gate needs",
        "the gate's Redis user may change Redis' settings",
        "use the user of deploy/redis/users.acl",
    );
    Some(server_info)
}

async fn postgres(config: &Config, findings: &mut Findings) -> Option<PostgresServerInfo> {
    let postgres = match app::postgres(config) {
        Ok(postgres) => postgres,
        Err(error) => {
            findings.wrong("the configuration of Postgres is invalid", &format!("{error:#}"));
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
            findings.wrong("the settings of Postgres cannot be read", &error.to_string());
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
        "Postgres runs with fsync on",
        "Postgres runs with fsync off",
        "set fsync on; otherwise a crash loses data that Redis no longer has",
    );
    let PostgresServerInfo { role, .. } = &server_info;
    findings.check(
        !(server_info.is_superuser || server_info.may_rewrite_log || server_info.may_create),
        &format!("the Postgres role {role} has no more rights than the gate needs"),
        &format!("the Postgres role {role} may rewrite the usage log or create tables"),
        "use the role of deploy/postgres/roles.sql",
    );
    findings.check(
        server_info.has_log_partitions,
        "the usage log has partitions for this month and the next",
        "the usage log lacks a partition for this month or the next",
        "run `quota-gate reset`, or a gate with resetter.enabled",
    );
    if server_info.rows_in_default_partition {
        findings.advice(
            "the usage log's default partition has rows",
            "run `quota-gate reset`, which moves them by ensure_usage_log_partition",
        );
    }
    let settings = config.partitions().ok().zip(config.time_zone().ok());
    if let Some((partitions, time_zone)) = settings {
        match postgres.compare_settings(&Settings { partitions, time_zone }).await {
            Ok(()) => findings.good("partitions and time zone match the installation"),
            Err(error) => findings.wrong("partitions or time zone do not match the installation", &error.to_string()),
        }
    }
    Some(server_info)
}

/// Compares the Redis of this configuration with those of the running gates.
async fn one_redis(config: &Config, findings: &mut Findings) {
    let (Ok(redis), Ok(postgres)) = (app::redis(config), app::postgres(config)) else { return };
    // What does not answer has been reported.
    let (Ok(mine), Ok(gates)) = (redis.server_id().await, postgres.seen_gates(SEEN_WITHIN).await) else { return };
    let mut elsewhere: BTreeMap<&str, usize> = BTreeMap::new();
    for gate in &gates {
        if gate.redis_process.as_deref().is_some_and(|process| process != mine.as_str()) {
            *elsewhere.entry(&gate.redis_address).or_default() += 1;
        }
    }
    let servers: Vec<String> = elsewhere.iter().map(|(address, count)| format!("{address} ({count} gates)")).collect();
    findings.check(
        servers.is_empty(),
        &format!("the {} running gates use the Redis of this configuration", gates.len()),
        &format!(
            "running gates use another Redis than {}, that of this configuration: {}",
            redis.address(),
            servers.join(", ")
        ),
        "set the same REDIS_URL everywhere; docs/operations.md, \"Move Redis\"",
    );
}

fn clocks(redis: &RedisServerInfo, postgres: &PostgresServerInfo, findings: &mut Findings) {
    let now: DateTime<Utc> = Clock::machine().now();
    for (store, time) in [("Redis", redis.time), ("Postgres", postgres.time)] {
        let difference = (time - now).abs();
        findings.check(
            difference <= SKEW_MAX,
            &format!("the clock of {store} agrees with this machine's"),
            &format!("the clock of {store} differs from this machine's by {} seconds", difference.num_seconds()),
            "synchronize both by NTP",
        );
    }
}
