//! The command line: one file per sub-command, each of which prints its result and returns an exit code.

mod compare;
mod completions;
mod dead_letters;
mod dev;
mod doctor;
mod health;
mod import;
mod inspect;
mod levels;
mod migrate;
mod output;
mod replay;
mod reset;
mod retention;
mod serve;
mod token;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::output::note;
use crate::config::Config;

/// Version, with the commit of the build if it is known.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("QUOTA_GATE_COMMIT"), ")");

/// Decides, for every message of a chat product, whether its user may still send it.
#[derive(Debug, Parser)]
#[command(name = "quota-gate", version = VERSION, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Configuration file; config/default.toml lists all settings.
    #[arg(long, global = true, value_name = "FILE", env = "QUOTA_GATE_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory of a running `dev`, whose stores and secrets a command uses; by default .quota-gate, if
    /// neither store is configured.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate. Settings from the environment: `DATABASE_URL`, `REDIS_URL`, `QUOTA_GATE__SECTION__KEY`.
    Serve,
    /// Run the gate with a private Redis and Postgres, and sample users.
    Dev(dev::Arguments),
    /// Bring the database up to date.
    Migrate,
    /// Import users from CSV (user,level,used), NDJSON, or a query of another Postgres.
    Import(import::Arguments),
    /// Move every user whose period is over to the current period.
    Reset,
    /// Drop old months of the usage log; must run as the tables' owner. Totals, closed months and usage by day stay.
    Retention(retention::Arguments),
    /// Show a user's data in Redis and Postgres.
    Inspect(inspect::Arguments),
    /// Manage membership levels.
    #[command(subcommand)]
    Levels(levels::Action),
    /// Prove that log, totals and Redis agree, also during traffic; exits with 1 if they do not.
    Verify(verify::Arguments),
    /// Compare the old credits system with the gate; exits with 1 if they differ.
    Compare(compare::Arguments),
    /// Replay the usage log with proposed levels and prices: who would have been denied, and what would be charged.
    Replay(replay::Arguments),
    /// List or replay usage events that Postgres refused.
    #[command(subcommand)]
    DeadLetters(dead_letters::Action),
    /// Print a JWT for a user.
    Token(token::Arguments),
    /// Check the configuration and both stores, and print what to change; exits with 1 if something is wrong.
    Doctor,
    /// Check whether the gate on this machine is ready; for containers.
    Health,
    /// Print completions for a shell.
    Completions(completions::Completions),
    /// Write the manual pages.
    Man(completions::Man),
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli.execute());
    let printed = output::finish().context("the output cannot be written");
    match outcome.and_then(|code| printed.map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            note!("error: {}", said_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// Returns an error and its causes. Many errors repeat the text of their cause; that is left out.
fn said_once(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |said, cause| {
        let cause = cause.to_string();
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

impl Cli {
    async fn execute(self) -> anyhow::Result<ExitCode> {
        let Self { command, config, data_dir } = self;
        let load = || Config::load(config.as_deref());
        // For commands that use the stores. They need only the secrets that they use.
        let of_stores = || -> anyhow::Result<Config> {
            let mut config = load()?;
            dev::use_running(&mut config, data_dir.as_deref())?;
            Ok(config)
        };
        match command {
            Command::Serve => serve::run(load()?).await,
            Command::Dev(arguments) => Box::pin(dev::run(arguments, data_dir, load()?)).await,
            Command::Migrate => migrate::run(of_stores()?).await,
            Command::Import(arguments) => import::run(arguments, of_stores()?).await,
            Command::Reset => reset::run(of_stores()?).await,
            Command::Retention(arguments) => retention::run(&arguments, &of_stores()?).await,
            Command::Inspect(arguments) => inspect::run(arguments, of_stores()?).await,
            Command::Levels(action) => levels::run(&action, of_stores()?).await,
            Command::Verify(arguments) => verify::run(arguments, of_stores()?).await,
            Command::Compare(arguments) => compare::run(arguments, of_stores()?).await,
            Command::Replay(arguments) => replay::run(&arguments, &of_stores()?).await,
            Command::DeadLetters(action) => dead_letters::run(&action, of_stores()?).await,
            Command::Token(arguments) => token::run(&arguments, data_dir.as_deref(), &load()?),
            Command::Doctor => doctor::run(of_stores()).await,
            Command::Health => health::run(of_stores()?).await,
            Command::Completions(arguments) => Ok(completions::completions(&arguments)),
            Command::Man(arguments) => completions::man(&arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
