//! `quota-gate migrate`: brings the database up to date.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{app, config::Config};
use quota_gate::{domain::clock::Clock, jobs::log_partitions::MONTHS_AHEAD};

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let postgres = app::postgres(&config)?;
    postgres.migrate().await?;
    let partitions = postgres.ensure_log_partitions(Clock::machine().now(), MONTHS_AHEAD).await?;
    if !partitions.blocked.is_empty() {
        say!("another session reads the whole usage log: a running gate creates the partitions of the next months");
    }
    say!("the database is up to date");
    Ok(ExitCode::SUCCESS)
}
