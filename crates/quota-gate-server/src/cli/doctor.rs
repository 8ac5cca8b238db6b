//! `quota-gate doctor`: checks the configuration and both stores, and prints what to change.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use crate::cli::output::say;
use crate::{
    app,
    cli::said_once,
    config::Config,
    descriptors::{self, Descriptors},
    http::listener::{BACKLOG, lower_bound},
};
use quota_gate::{
    domain::{
        ap::Ap,
        clock::Clock,
        journal::{Entry, StreamId},
        level::LevelName,
    },
    gate::{ReservationSigner, newer_journal_reason},
    store::{
        postgres::{POSTGRES_VERSION_MIN, Postgres, PostgresError, PostgresServerInfo, Route, Settings, UuidSpellings},
        redis::{RedisRights, RedisServerInfo},
    },
};

/// If clocks differ by more than this, gates refuse to decide.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(60);
/// Age of a heartbeat of a running gate. It sends one every second.
const SEEN_WITHIN: Duration = Duration::from_secs(3);
/// Used share of `maxmemory`, in percent, above which it is reported, before it is full.
const MEMORY_SHARE_MAX: u64 = 80;

/// Entries of each partition's journal that are read.
const JOURNAL_ENTRIES: usize = 1_000;

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
        say!("ok     {what}");
    }

    /// Reports an error: a gate would not start, would lose charges, or would be insecure.
    fn wrong(&mut self, what: &str, todo: &str) {
        self.wrong += 1;
        say!("WRONG  {what}: {todo}");
    }

    /// Reports something that works but could be better.
    fn advice(&mut self, what: &str, todo: &str) {
        self.advice += 1;
        say!("advice {what}: {todo}");
    }

    fn check(&mut self, is_good: bool, good: &str, wrong: &str, todo: &str) {
        if is_good {
            self.good(good);
        } else {
            self.wrong(wrong, todo);
        }
    }
}

pub(super) async fn run(config: anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    match config {
        Ok(config) => {
            findings.good("the configuration can be read");
            configuration(&config, &app::refusals(&config).await, &mut findings);
            let redis = redis(&config, &mut findings).await;
            let postgres = postgres(&config, &mut findings).await;
            one_redis(&config, &mut findings).await;
            if let (Some(redis), Some(postgres)) = (redis, postgres) {
                clocks(&redis, &postgres, &mut findings);
                journal(&config, &mut findings).await;
            }
        }
        Err(error) => findings.wrong("the configuration cannot be read", &said_once(&error)),
    }
    let Findings { good, advice, wrong } = findings;
    say!("{good} ok, {advice} advice, {wrong} wrong");
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configuration(config: &Config, refusals: &[(&str, anyhow::Error)], findings: &mut Findings) {
    let auth = &config.auth;
    let secret = auth.reservation_secret.expose();
    findings.check(
        ReservationSigner::new(secret.as_bytes()).is_ok(),
        "auth.reservation_secret is long enough",
        "auth.reservation_secret is missing or shorter than 32 bytes",
        "create one with `openssl rand -hex 32`, the same for all gates",
    );
    // What `serve` would refuse.
    for (part, reason) in refusals {
        let problem = match *part {
            "[auth]" => "users' JWTs cannot be verified, or a token is invalid".to_owned(),
            part => format!("{part} is invalid"),
        };
        findings.wrong(&problem, &said_once(reason));
    }
    if refusals.is_empty() {
        findings.good("everything that is configured can be built");
    }
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
    for warning in config.warnings() {
        findings.advice(&warning, "change it if that is not meant");
    }
    let descriptors = Descriptors::of(config, descriptors::highest_limit());
    if descriptors.suffice() {
        findings.good("the limit of file descriptors suffices for all connections");
    } else {
        let allowed = descriptors.connections_max();
        findings.advice(
            &format!("{descriptors}, so at most {allowed} clients are accepted"),
            "raise the limit (ulimit -Hn, LimitNOFILE), or lower server.connections_max",
        );
    }
    if let Some(bound) = lower_bound() {
        findings.advice(
            &format!("net.core.somaxconn is {bound}, so only as many connections can wait to be accepted"),
            &format!("set it to {BACKLOG}; otherwise clients that reconnect together wait for a second or more"),
        );
    }
    if !config.flusher.enabled {
        findings.advice("flusher.enabled is false here", "at least one gate must flush usage to Postgres");
    }
    if !config.resetter.enabled {
        findings.advice("resetter.enabled is false here", "a cron job must post to /api/chat/quota/reset");
    }
}

async fn redis(config: &Config, findings: &mut Findings) -> Option<RedisServerInfo> {
    let answers = async {
        let redis = app::redis(config)?;
        anyhow::Ok((redis.server_info().await?, redis.rights().await?))
    };
    let server_info = match answers.await {
        Ok((server_info, answered)) => {
            rights(&answered, findings);
            server_info
        }
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
        None => findings.good(&format!("{} is a primary with maxmemory-policy noeviction", server_info.product)),
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
    } else if let Ok(partitions) = config.partitions()
        && u64::from(partitions.count()) * config.redis.stream_bytes_max * 2 > server_info.maxmemory
    {
        findings.wrong(
            &format!(
                "the usage streams of {} partitions may take {} bytes each, more than half of maxmemory",
                partitions.count(),
                config.redis.stream_bytes_max
            ),
            "raise maxmemory or lower redis.stream_bytes_max, so that new messages are refused before Redis' memory is full",
        );
    }
    Some(server_info)
}

fn rights(rights: &RedisRights, findings: &mut Findings) {
    if !rights.missing.is_empty() {
        findings.wrong(
            &format!("the gate's Redis user may not run {}", rights.missing.join(", ")),
            "give it the rights of deploy/redis/users.acl",
        );
    }
    findings.check(
        !rights.may_administer,
        "the gate's Redis user has no more rights than the gate needs",
        "the gate's Redis user may change Redis' settings",
        "use the user of deploy/redis/users.acl",
    );
    match rights.may_replay {
        Some(may_replay) => findings.check(
            may_replay,
            "Redis may execute its append-only file at a restart",
            "the default user of Redis has no commands, with which Redis executes its append-only file: a restart drops \
             unflushed charges and stored answers without an error",
            "in the ACL file, replace the line of the default user by `user default off ~* &* +@all`, which allows no \
             login either",
        ),
        None => findings.advice(
            "the gate's Redis user may not ask for the rights of the default user",
            "add +acl|dryrun to its line, as in deploy/redis/users.acl; or see that `ACL GETUSER default` has the \
             commands +@all and the keys ~*: otherwise a restart of Redis drops its append-only file",
        ),
    }
    if !rights.may_reuse_connections {
        findings.advice(
            "the gate's Redis user may not run UNWATCH, so the gate opens a connection for each use of its pool",
            "add +unwatch to its line, as in deploy/redis/users.acl",
        );
    }
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
    findings.check(
        server_info.synchronous_commit == "on",
        "a confirmed commit is on disk",
        &format!("synchronous_commit is {} in the gate's transactions", server_info.synchronous_commit),
        "find out what changes it; a crash of Postgres may lose charges that Redis no longer has",
    );
    if let Ok(Route::Pooled) = postgres.route().await {
        findings.good("Postgres is behind a pooler: every statement runs in a transaction with its own settings");
    }
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
    if let Ok(UuidSpellings { unusual, doubled }) = postgres.uuid_spellings().await {
        findings.check(
            doubled == 0,
            "no UUID is the id of several users",
            &format!("{doubled} UUIDs are the id of several users, in several spellings"),
            "let every part of the product send ids in one spelling; the other users keep their own quotas and levels",
        );
        if unusual > 0 {
            findings.advice(
                &format!("{unusual} user ids are UUIDs with upper-case digits or urn:uuid:"),
                "each spelling is a user of its own, so make sure that every part of the product sends the same one",
            );
        }
    }
    if let Ok(configured) = config.levels() {
        levels(&configured, &postgres, findings).await;
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

/// Whether this version can read the usage that waits in Redis. A failure is reported by the other checks.
async fn journal(config: &Config, findings: &mut Findings) {
    let (Ok(redis), Ok(postgres), Ok(partitions)) = (app::redis(config), app::postgres(config), config.partitions())
    else {
        return;
    };
    let Ok(watermarks) = postgres.watermarks().await else { return };
    let mut newest = None;
    for (partition, watermark) in partitions.all().zip(watermarks) {
        let from = watermark.position.map_or(StreamId::GENESIS, |position| position.id);
        let Ok(entries) = redis.read_stream(partition, watermark.generation, from, JOURNAL_ENTRIES).await else {
            return;
        };
        newest = newest.max(entries.iter().filter_map(Entry::newer_format).max());
    }
    match newest {
        None => findings.good("this version can read the usage that waits in Redis"),
        Some(format) => {
            findings.wrong("usage waits in Redis that this version cannot read", &newer_journal_reason(format));
        }
    }
}

async fn levels(configured: &[(LevelName, Ap)], postgres: &Postgres, findings: &mut Findings) {
    let found = async {
        if postgres.level_version().await? == 0 {
            return Ok(None); // no gate has started yet
        }
        let levels = postgres.all_levels().await?;
        Ok::<_, PostgresError>(Some((levels.differences(configured), postgres.is_level_change_unfinished().await?)))
    };
    match found.await {
        Ok(None) => {}
        Ok(Some((differences, unfinished))) => {
            if differences.is_empty() {
                findings.good("the configured levels are those of the installation");
            } else {
                let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
                findings.advice(
                    &format!("the configured levels are not used ({})", differences.join("; ")),
                    "run `quota-gate levels apply` to change the levels of the installation, or correct [levels]",
                );
            }
            if unfinished {
                findings.advice(
                    "a change of the levels has not reached all users",
                    "run `quota-gate levels apply`, which finishes it",
                );
            }
        }
        Err(error) => findings.wrong("the levels cannot be read", &error.to_string()),
    }
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
