//! Replays what Postgres refused (dead letters) after the cause is fixed.
//!
//! Adds an event to the log and the totals if it is missing there, then deletes its letter. Reads unreadable entries
//! again: a newer program may understand them.

use crate::{
    domain::{calendar::Calendar, clock::Clock, journal::Content, level::Levels},
    gate::newer_journal_reason,
    store::{
        postgres::{DeadLetter, LetterContent, Postgres, PostgresError, Replay},
        redis::decode_entry,
    },
};

/// Maximum letters of one replay.
const LETTERS_MAX: u32 = 10_000;

/// Replays dead letters.
#[derive(Debug, Clone)]
pub struct Replayer {
    /// Store of the letters.
    pub postgres: Postgres,
    /// Calendar of periods.
    pub calendar: Calendar,
    /// Clock of this machine.
    pub clock: Clock,
}

/// Result of replaying a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// Its charges are counted now, or were before.
    Done,
    /// It still cannot be read or stored, and is kept.
    Refused(String),
}

impl Replayer {
    /// Replays these letters, or all if `ids` is empty, in the order of their ids.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn replay(&self, ids: &[i64]) -> Result<Vec<(DeadLetter, Replayed)>, PostgresError> {
        let levels = self.postgres.all_levels().await?;
        let mut letters = self.postgres.dead_letters(LETTERS_MAX).await?;
        letters.retain(|letter| ids.is_empty() || ids.contains(&letter.id));
        letters.reverse();
        let mut outcomes = Vec::with_capacity(letters.len());
        for letter in letters {
            let outcome = self.replay_one(&letter, &levels).await?;
            outcomes.push((letter, outcome));
        }
        Ok(outcomes)
    }

    async fn replay_one(&self, letter: &DeadLetter, levels: &Levels) -> Result<Replayed, PostgresError> {
        let events = match self.postgres.letter_content(letter.id).await? {
            LetterContent::Event(event) => vec![event],
            LetterContent::Entry(payload) => match decode_entry(payload) {
                Content::Events(events) => events,
                Content::Genesis => Vec::new(),
                Content::Newer { format } => return Ok(Replayed::Refused(newer_journal_reason(format))),
                Content::Unreadable { reason, .. } => return Ok(Replayed::Refused(reason)),
            },
            LetterContent::Unreadable(reason) => return Ok(Replayed::Refused(reason)),
            LetterContent::Gone => return Ok(Replayed::Done),
        };
        match self.postgres.replay(letter.id, &events, levels, self.calendar, self.clock.now()).await? {
            Replay::Done => Ok(Replayed::Done),
            Replay::Refused(reason) => Ok(Replayed::Refused(reason)),
        }
    }
}
