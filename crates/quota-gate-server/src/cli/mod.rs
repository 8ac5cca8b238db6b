//! The command line: one file per sub-command, each of which prints, and returns an exit code.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

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
mod reset;
mod retention;
mod serve;
mod token;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config::Config;

/// With the commit that it was built from, where that is known.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("QUOTA_GATE_COMMIT"), ")");

/// Decides, for every message of a chat product, whether its user may still send it.
#[derive(Debug, Parser)]
#[command(name = "quota-gate", version = VERSION, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// A file of settings; see config/default.toml.
    #[arg(long, global = true, value_name = "FILE", env = "QUOTA_GATE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve. Takes `DATABASE_URL`, `REDIS_URL` and `QUOTA_GATE__SECTION__KEY`.
    Serve,
    /// Serve with a Redis and a Postgres of its own, and sample users.
    Dev(dev::Arguments),
    /// Bring the database up to date.
    Migrate,
    /// Import users from CSV (user,level,used), NDJSON, or a query of another Postgres.
    Import(import::Arguments),
    /// Bring every row that is due into the current period.
    Reset,
    /// Drop old months of the usage log, as the tables' owner. Totals, closed months and usage by day stay.
    Retention(retention::Arguments),
    /// Show what Redis and Postgres know of a user.
    Inspect(inspect::Arguments),
    /// Membership levels.
    #[command(subcommand)]
    Levels(levels::Action),
    /// Prove that log, totals and Redis agree; exits with 1 where they do not. Traffic may go on.
    Verify(verify::Arguments),
    /// Set the old credits system beside the gate; exits with 1 where they differ.
    Compare(compare::Arguments),
    /// Usage events that Postgres refused.
    #[command(subcommand)]
    DeadLetters(dead_letters::Action),
    /// Print a user's JWT.
    Token(token::Arguments),
    /// Look at the configuration and both stores, and say what to change; exits with 1 where something is wrong.
    Doctor,
    /// Is the gate on this machine ready? For containers.
    Health,
    /// Print completions for a shell.
    Completions(completions::Completions),
    /// Write the manual pages.
    Man(completions::Man),
}

/// Parses the arguments and runs.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.execute()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    async fn execute(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(self.config.as_deref());
        match self.command {
            Command::Serve => serve::run(config?).await,
            Command::Dev(arguments) => dev::run(arguments, config?).await,
            Command::Migrate => migrate::run(config?).await,
            Command::Import(arguments) => import::run(arguments, config?).await,
            Command::Reset => reset::run(config?).await,
            Command::Retention(arguments) => retention::run(&arguments, &config?).await,
            Command::Inspect(arguments) => inspect::run(arguments, config?).await,
            Command::Levels(action) => levels::run(&action, config?).await,
            Command::Verify(arguments) => verify::run(arguments, config?).await,
            Command::Compare(arguments) => compare::run(arguments, config?).await,
            Command::DeadLetters(action) => dead_letters::run(&action, config?).await,
            Command::Token(arguments) => token::run(&arguments, &config?),
            Command::Doctor => doctor::run(config).await,
            Command::Health => health::run(config?).await,
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
