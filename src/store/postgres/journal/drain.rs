//! Step 3 of an opening: writes the events of the old streams that Postgres does not have yet.

use std::ops::AddAssign;

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

/// Events per insert: large enough to be fast, small enough for the statement timeout.
const CHUNK_EVENTS: usize = 5_000;

/// Result of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainReport {
    /// Events in the streams.
    pub events: u64,
    /// Events that were not in Postgres yet.
    pub inserted: u64,
    /// Events and entries that were refused.
    pub dead_letters: u64,
}

impl Postgres {
    /// Writes the missing events of a part of the streams, and adds only those to the totals. Returns `None` and
    /// changes nothing unless the partition is being opened in this generation. Drained parts stay drained even if a
    /// later part fails.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn drain(
        &self,
        partition: u16,
        generation: u32,
        entries: &[Entry],
        levels: &Levels,
        calendar: Calendar,
        now: DateTime<Utc>,
    ) -> Result<Option<DrainReport>, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        // A cached plan may be outdated: scanning a whole month is cheap only while the month has just begun.
        sqlx::query!("set local plan_cache_mode = force_custom_plan").execute(&mut transaction).await?;
        let opening = sqlx::query!(
            "select from flush_watermarks
             where partition = $1
               and generation = $2
               and last_id is null
             for update",
            smallint(partition),
            integer(generation),
        )
        .fetch_optional(&mut transaction)
        .await?;
        if opening.is_none() {
            return Ok(None);
        }
        let events: Vec<&UsageEvent> = entries.iter().flat_map(Entry::events).collect();
        let mut report = DrainReport { events: events.len() as u64, ..DrainReport::default() };
        let letters = dead_letters::Origin { partition, generation, now };
        report.dead_letters += letters.keep(&mut transaction, entries, &[]).await?;
        let mut new: Vec<&UsageEvent> = Vec::new();
        for chunk in events.chunks(CHUNK_EVENTS) {
            let written = chat_usage_logs::write(&mut transaction, chunk, levels, Mode::IfAbsent).await?;
            totals::add(&mut transaction, &written.new, levels, calendar, now).await?;
            if self.dual_write {
                dual_writes::enqueue(&mut transaction, &written.new).await?;
            }
            report.inserted += written.new.len() as u64;
            new.extend(written.new);
            report.dead_letters += letters.keep(&mut transaction, &[], &written.refused).await?;
        }
        usage_days::add(&mut transaction, smallint(partition), &new, levels, calendar).await?;
        if report.inserted > 0 {
            // The journal in Postgres no longer ends in that entry. A later attempt, which may find an older copy of
            // Redis, must not take it for the end.
            sqlx::query!(
                "update flush_watermarks set last_event = $2 where partition = $1",
                smallint(partition),
                Position::GENESIS.event,
            )
            .execute(&mut transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(Some(report))
    }
}

impl AddAssign for DrainReport {
    fn add_assign(&mut self, part: Self) {
        self.events += part.events;
        self.inserted += part.inserted;
        self.dead_letters += part.dead_letters;
    }
}
