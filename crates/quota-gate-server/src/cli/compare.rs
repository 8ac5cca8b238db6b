//! `quota-gate compare`: compares the old credits system with the gate.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde::Deserialize;

use crate::cli::output::say;
use crate::{
    app,
    config::Config,
    outbox::compare::{BalanceDifference, Comparer, OldUsage},
};
use quota_gate::domain::{calendar::Calendar, clock::Clock, user_id::UserId};

/// Maximum users to list; the others are only counted.
const NAMED_MAX: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Export of the old system: CSV with the header user,used. Without it, the gate requests the numbers from
    /// `dual_write.url`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Line {
    user: String,
    used: i64,
}

pub(super) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let old = if let Some(file) = &arguments.file {
        OldUsage::Export(read_export(file).with_context(|| format!("{} cannot be read", file.display()))?)
    } else {
        let old = app::old_credits(&config)?;
        OldUsage::System(Box::new(
            old.context("dual_write.url is not set: set it, or pass an export of the old system with --file")?,
        ))
    };
    let period = Calendar::new(config.time_zone()?).month_at(Clock::machine().now());
    let postgres = app::settled_postgres(&config).await?;
    let comparison = Comparer { postgres, old }.compare(period).await?;
    for BalanceDifference { user, gate, old } in comparison.differences.iter().take(NAMED_MAX) {
        let old = old.as_ref().map_or_else(|error| format!("unknown ({error})"), i64::to_string);
        say!("{user}: AP used: gate {gate}, old system {old}");
    }
    say!(
        "{period}: {} users, {} differ; {} AP still wait for delivery to the old system",
        comparison.users,
        comparison.differences.len(),
        comparison.waiting
    );
    Ok(if comparison.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads each user's usage from an export. Adds up several lines of one user.
fn read_export(file: &Path) -> anyhow::Result<HashMap<UserId, i64>> {
    let mut export = HashMap::new();
    for line in csv::Reader::from_path(file)?.deserialize() {
        let Line { user, used } = line?;
        *export.entry(UserId::parse(&user)?).or_default() += used;
    }
    Ok(export)
}
