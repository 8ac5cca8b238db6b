//! `quota-gate levels apply`: makes the configured levels those of the installation. Only this changes them.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{
    app::{self, App},
    config::Config,
};
use quota_gate::{
    domain::{
        level::{LevelName, LevelTerms},
        meter::MeterLevels,
    },
    gate::ApplyProgress,
    jobs::level_sync::LevelSync,
    store::postgres::Postgres,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Make [levels] and [meters] of the configuration those of the installation, for every gate, and give every user
    /// the quota of the user's level now. Run it again to finish after an interruption.
    Apply(Apply),
}

#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// Print what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(action: &Action, config: Config) -> anyhow::Result<ExitCode> {
    let Action::Apply(arguments) = action;
    let (configured, meters) = (config.levels()?, config.meters()?);
    if arguments.dry_run {
        let postgres = app::settled_postgres(&config).await?;
        if postgres.level_version().await? == 0 {
            say!("there are no levels yet: the first start of a gate stores the configured ones");
            return Ok(ExitCode::SUCCESS);
        }
        print(&configured, &meters, &postgres).await?;
        if postgres.is_level_change_unfinished().await? {
            say!("the last change has not reached all users: applying finishes it");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let app = App::for_command(config).await?;
    let postgres = app.gate.postgres();
    print(&configured, &meters, postgres).await?;
    let moved = app.gate.apply_levels(&configured, show).await?;
    say!("{moved} users moved");
    if !app.gate.apply_meters(&meters).await?.is_empty() {
        say!("the quotas of the meters count now, for all users");
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

async fn print(levels: &[(LevelName, LevelTerms)], meters: &[MeterLevels], postgres: &Postgres) -> anyhow::Result<()> {
    let stored = postgres.all_levels().await?;
    let (differences, of_meters) = (stored.differences(levels), stored.meter_differences(meters));
    for difference in of_meters {
        say!("{difference}");
    }
    if differences.is_empty() {
        say!("the levels of the installation are the configured ones");
        return Ok(());
    }
    let by_level = postgres.users_by_level().await?;
    for difference in differences {
        let users =
            by_level.iter().find(|(level, _)| level == difference.name().as_str()).map_or(0, |(_, users)| *users);
        say!("{difference} ({users} users)");
    }
    Ok(())
}

fn show(progress: &ApplyProgress) {
    match progress {
        ApplyProgress::Stored(_) => say!("stored in Postgres"),
        ApplyProgress::Sent => say!("sent to every partition of Redis"),
        ApplyProgress::Moving(users) => say!("{users} users moved so far"),
    }
}
