//! `quota-gate migrate`: brings the database up to date.

use std::process::ExitCode;

use crate::{app, config::Config};
use quota_gate::domain::clock::Clock;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let postgres = app::postgres(&config)?;
    postgres.migrate().await?;
    postgres.ensure_log_partitions(Clock::machine().now(), 3).await?;
    println!("the database is up to date");
    Ok(ExitCode::SUCCESS)
}
