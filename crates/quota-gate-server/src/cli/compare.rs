//! `quota-gate compare`

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde::Deserialize;

use crate::{
    app,
    config::Config,
    outbox::compare::{BalanceDifference, Comparer, Old},
};
use quota_gate::domain::{calendar::Calendar, clock::Clock, user_id::UserId};

/// Most users that are named; the others are counted.
const NAMED_MAX: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the old system exported, as CSV with the header user,used. Without it, `dual_write.url` is asked.
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
        Old::Listed(listed(file).with_context(|| format!("{} cannot be read", file.display()))?)
    } else {
        let old = app::old_credits(&config)?;
        Old::Asked(Box::new(old.context("dual_write.url is not set; give the old system's export by --file")?))
    };
    let period = Calendar::new(config.time_zone()?).period_at(Clock::machine().now());
    let postgres = app::settled_postgres(&config).await?;
    let comparison = Comparer { postgres, old }.compare(period).await?;
    for BalanceDifference { user, gate, old } in comparison.differences.iter().take(NAMED_MAX) {
        let old = old.as_ref().map_or_else(|error| format!("nothing: {error}"), i64::to_string);
        println!("{user}: the gate says {gate}, the old system {old}");
    }
    println!(
        "{period}: {} users, {} differ; {} AP are on their way to the old system",
        comparison.users,
        comparison.differences.len(),
        comparison.waiting
    );
    Ok(if comparison.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What each user has used, by an export; lines of one user are added up.
fn listed(file: &Path) -> anyhow::Result<HashMap<UserId, i64>> {
    let mut listed = HashMap::new();
    for line in csv::Reader::from_path(file)?.deserialize() {
        let Line { user, used } = line?;
        *listed.entry(UserId::parse(&user)?).or_default() += used;
    }
    Ok(listed)
}
