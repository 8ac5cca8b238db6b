//! `quota-gate retention`: drops old months of the usage log. Run by the owner of the tables: the gate's own role may not.

use std::process::ExitCode;

use anyhow::ensure;
use chrono::{Datelike, Months, NaiveDate};

use crate::{app, config::Config};
use quota_gate::domain::clock::Clock;

/// Fewer would be asked for: a settlement is looked up for days, `usedToday` and a commit of last month in the log.
const KEEP_MONTHS_MIN: u32 = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whole months to keep besides the current one; at least 2.
    #[arg(long, default_value_t = 13)]
    keep_months: u32,
    /// Only say what would be dropped.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let &Arguments { keep_months, dry_run } = arguments;
    ensure!(keep_months >= KEEP_MONTHS_MIN, "--keep-months must be at least {KEEP_MONTHS_MIN}");
    let postgres = app::postgres(config)?;
    postgres.check_schema().await?;
    let today = Clock::machine().now().date_naive();
    let current = NaiveDate::from_ymd_opt(today.year(), today.month(), 1).unwrap_or(today);
    let first_kept = current - Months::new(keep_months);
    let old = postgres.log_partitions_before(first_kept).await?;
    for partition in &old {
        if !dry_run {
            postgres.drop_log_partition(partition).await?;
        }
        let done = if dry_run { "would drop" } else { "dropped" };
        println!("{done} {}: some {} rows, {} bytes", partition.name, partition.rows, partition.bytes);
    }
    println!("{} months of the log from before {first_kept}", old.len());
    Ok(ExitCode::SUCCESS)
}
