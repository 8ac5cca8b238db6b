//! `quota-gate levels apply`: applies changed quotas now, instead of from each user's next period.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{app::App, config::Config};
use quota_gate::{domain::clock::Clock, jobs::level_sync::LevelSync};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Give every user the quota that is configured for their level, now.
    Apply,
}

pub(super) async fn run(action: &Action, config: Config) -> anyhow::Result<ExitCode> {
    let Action::Apply = action;
    let app = App::for_command(config).await?;
    for level in app.gate.levels().iter() {
        let changed = app.gate.postgres().apply_level(level.name.as_str(), level.quota, Clock::machine().now()).await?;
        say!("{}: {} AP, {changed} users changed", level.name, level.quota);
    }
    // The level sync of running gates helps; this loop sends the remaining changes to Redis.
    let level_sync = LevelSync::new(&app.gate);
    let (mut after, mut unsynced) = (None, 0);
    loop {
        let step = level_sync.sync_some(after.as_ref()).await?;
        unsynced += step.unsynced;
        after = step.last;
        if after.is_none() {
            break;
        }
    }
    if unsynced > 0 {
        say!("the new quota of {unsynced} users is not in Redis yet: running gates retry");
    }
    Ok(ExitCode::SUCCESS)
}
