//! `quota-gate levels apply`: changed quotas hold now, instead of from each user's next period.

use std::process::ExitCode;

use chrono::TimeDelta;

use crate::{app::App, config::Config, domain::clock::Clock};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Give every user the quota that the configuration has for their level, now.
    Apply,
}

pub(super) async fn run(action: &Action, config: Config) -> anyhow::Result<ExitCode> {
    let Action::Apply = action;
    let app = App::build(config).await?;
    for level in app.gate.levels().iter() {
        let changed = app.postgres.apply_level(level.name.as_str(), level.quota, Clock::machine().now()).await?;
        println!("{}: {} AP, {changed} users changed", level.name, level.quota);
    }
    // The announcers of running gates help; what is left is told from here.
    while app.announcer().step(TimeDelta::seconds(-1)).await? > 0 {}
    Ok(ExitCode::SUCCESS)
}
