//! `quota-gate retention`: drops old months of the usage log. Only the tables' owner may run it, not the gate's role.

use std::process::ExitCode;

use anyhow::ensure;
use chrono::{Datelike, Months, NaiveDate};

use crate::cli::output::say;
use crate::{app, config::Config};
use quota_gate::domain::clock::Clock;

/// The gate still reads these months of the log: to look up settlements for days, for `usedToday`, for commits of the
/// last month, and for windows of up to 31 days.
const KEEP_MONTHS_MIN: u32 = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Whole months to keep in addition to the current one; at least 2.
    #[arg(long, default_value_t = 13)]
    keep_months: u32,
    /// Only print what would be dropped.
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
        say!("{done} {}: about {} rows, {} bytes", partition.name, partition.rows, partition.bytes);
    }
    say!("{} months of the usage log before {first_kept}", old.len());
    Ok(ExitCode::SUCCESS)
}
