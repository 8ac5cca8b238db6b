//! A flush: one transaction that writes stream entries to the log and the totals, exactly once.
//!
//! The watermark moves first, by compare-and-swap. If that fails, the flush rolls back: another flusher was faster, or
//! the partition is being opened. So the rows need no check of their own.

use chrono::{DateTime, Utc};

use crate::domain::{
    calendar::Calendar,
    journal::{Entry, Position},
    level::Levels,
    usage::UsageEvent,
};
use crate::store::postgres::{
    Postgres, PostgresError,
    integers::{integer, smallint},
    journal::{
        chat_usage_logs::{self, Mode},
        dead_letters, totals, usage_days,
    },
    outbox::dual_writes,
};

/// Input of a flush.
#[derive(Debug, Clone, Copy)]
pub struct Flush<'a> {
    /// Partition of the entries.
    pub partition: u16,
    /// Generation of their stream.
    pub generation: u32,
    /// Watermark that the entries follow.
    pub from: Position,
    /// Entries after the watermark, in order; at least one.
    pub entries: &'a [Entry],
    /// Levels, for the names of the codes in events.
    pub levels: &'a Levels,
    /// Calendar, for the period ends of rows that must roll first.
    pub calendar: Calendar,
    /// Current time.
    pub now: DateTime<Utc>,
}

/// Outcome of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushOutcome {
    /// The entries are in Postgres.
    Committed(FlushReport),
    /// The watermark has moved; nothing was changed.
    Superseded,
}

/// Counts of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushReport {
    /// Rows added to the log.
    pub rows: u64,
    /// Refused events and unreadable entries.
    pub dead_letters: u64,
}

impl Postgres {
    /// Flushes entries. After a lost connection, the watermark shows whether the flush was committed.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn flush(&self, flush: Flush<'_>) -> Result<FlushOutcome, PostgresError> {
        let Some(last) = flush.entries.last() else { return Ok(FlushOutcome::Superseded) };
        let to = last.position();
        let mut transaction = self.pool.begin().await?;
        let moved = sqlx::query!(
            "update flush_watermarks
             set last_id = $5,
                 last_event = $6,
                 updated_at = $7
             where partition = $1
               and generation = $2
               and last_id = $3
               and last_event = $4",
            smallint(flush.partition),
            integer(flush.generation),
            flush.from.id.to_string(),
            flush.from.event,
            to.id.to_string(),
            to.event,
            flush.now,
        )
        .execute(&mut transaction)
        .await?;
        if moved.rows_affected() != 1 {
            transaction.rollback().await?;
            return Ok(FlushOutcome::Superseded);
        }
        let events: Vec<&UsageEvent> = flush.entries.iter().flat_map(Entry::events).collect();
        let written = chat_usage_logs::write(&mut transaction, &events, flush.levels, Mode::New).await?;
        totals::add(&mut transaction, &written.new, flush.levels, flush.calendar, flush.now).await?;
        if self.dual_write {
            dual_writes::enqueue(&mut transaction, &written.new).await?;
        }
        usage_days::add(&mut transaction, smallint(flush.partition), &written.new, flush.levels, flush.calendar)
            .await?;
        let letters = dead_letters::Origin { partition: flush.partition, generation: flush.generation, now: flush.now };
        let dead_letters = letters.keep(&mut transaction, flush.entries, &written.refused).await?;
        transaction.commit().await?;
        Ok(FlushOutcome::Committed(FlushReport { rows: written.new.len() as u64, dead_letters }))
    }
}
