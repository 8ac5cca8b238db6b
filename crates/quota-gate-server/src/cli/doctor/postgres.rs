//! Checks Postgres: its settings, the rights of the gate's role, the tables, and whether the configuration matches
//! them.

use quota_gate::{
    domain::{
        clock::Clock,
        level::{LevelName, LevelTerms},
        meter::MeterLevels,
    },
    store::postgres::{
        POSTGRES_VERSION_MIN, Postgres, PostgresError, PostgresServerInfo, Route, Settings, UuidSpellings,
    },
};

use super::Findings;
use crate::{app, config::Config};

pub(super) async fn check(config: &Config, findings: &mut Findings) -> Option<PostgresServerInfo> {
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
        levels(&configured, &config.meters().unwrap_or_default(), &postgres, findings).await;
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

async fn levels(
    configured: &[(LevelName, LevelTerms)],
    meters: &[MeterLevels],
    postgres: &Postgres,
    findings: &mut Findings,
) {
    let found = async {
        if postgres.level_version().await? == 0 {
            return Ok(None); // no gate has started yet
        }
        let levels = postgres.all_levels().await?;
        let of_levels = levels.differences(configured).into_iter().map(|difference| difference.to_string());
        let of_meters = levels.meter_differences(meters).into_iter().map(|difference| difference.to_string());
        let differences: Vec<String> = of_levels.chain(of_meters).collect();
        Ok::<_, PostgresError>(Some((differences, postgres.is_level_change_unfinished().await?)))
    };
    match found.await {
        Ok(None) => {}
        Ok(Some((differences, unfinished))) => {
            if differences.is_empty() {
                findings.good("the configured levels are those of the installation");
            } else {
                findings.advice(
                    &format!("the configured levels are not used ({})", differences.join("; ")),
                    "run `quota-gate levels apply` to change the levels of the installation, or correct [levels] and [meters]",
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
