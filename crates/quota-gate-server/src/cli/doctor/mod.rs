//! `quota-gate doctor`: checks the configuration and both stores, and prints what to change.
//!
//! | file | checks |
//! | --- | --- |
//! | `redis`, `postgres` | one store: its settings, and the rights of the gate's account |
//! | `installation` | what both stores and the running gates must agree about |

mod installation;
mod postgres;
mod redis;

use std::process::ExitCode;

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
    domain::clock::Clock,
    gate::ReservationSigner,
    store::{postgres::PostgresServerInfo, redis::RedisServerInfo},
};

/// If clocks differ by more than this, gates refuse to decide.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(60);

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
            let redis = redis::check(&config, &mut findings).await;
            let postgres = postgres::check(&config, &mut findings).await;
            installation::one_redis(&config, &mut findings).await;
            if let (Some(redis), Some(postgres)) = (redis, postgres) {
                clocks(&redis, &postgres, &mut findings);
                installation::journal(&config, &mut findings).await;
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
