//! `quota-gate dead-letters`: lists usage events that Postgres refused, and replays them.

use std::process::ExitCode;

use crate::cli::output::say;
use crate::{app, config::Config};
use quota_gate::{
    audit::replay::{Replayed, Replayer},
    domain::{calendar::Calendar, clock::Clock},
    store::postgres::DeadLetter,
};

/// Maximum letters to list.
const LISTED_MAX: u32 = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// List the newest dead letters.
    List,
    /// Count dead letters after their cause is fixed; exits with 1 if one is refused again.
    Replay {
        /// Ids, as `list` shows them; by default all.
        ids: Vec<i64>,
    },
}

pub(super) async fn run(action: &Action, config: Config) -> anyhow::Result<ExitCode> {
    let postgres = app::settled_postgres(&config).await?;
    match action {
        Action::List => {
            for letter in postgres.dead_letters(LISTED_MAX).await? {
                print(&letter, &letter.reason);
            }
            say!("{} dead letters", postgres.dead_letter_count().await?);
            Ok(ExitCode::SUCCESS)
        }
        Action::Replay { ids } => {
            let calendar = Calendar::new(config.time_zone()?);
            let outcomes = Replayer { postgres, calendar, clock: Clock::machine() }.replay(ids).await?;
            let mut refused = 0;
            for (letter, outcome) in &outcomes {
                match outcome {
                    Replayed::Done => print(letter, "counted"),
                    Replayed::Refused(reason) => {
                        refused += 1;
                        print(letter, reason);
                    }
                }
            }
            say!("{} counted, {refused} refused again", outcomes.len() - refused);
            Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn print(letter: &DeadLetter, what: &str) {
    let user = letter.user.as_deref().unwrap_or("-");
    let ap = letter.ap.map_or_else(|| "-".to_owned(), |ap| ap.to_string());
    say!("{} {} entry {} user {user} AP {ap}: {what}", letter.id, letter.at.to_rfc3339(), letter.entry);
}
