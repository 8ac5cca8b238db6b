//! The verifier: proves that Σ log = totals = Redis, user by user.
//!
//! Postgres against itself in one snapshot. Redis against Postgres by the identity that the whole design stands on:
//! a record is what its row says, plus the events after the watermark. Traffic may go on: a user who seems to
//! differ is looked at again, for the two stores cannot be read at one moment.

use std::{collections::HashMap, time::Duration};

use tokio::time::sleep;

use crate::{
    domain::{
        calendar::{Calendar, Period},
        clock::Clock,
        journal::{Entry, StreamId, Watermark},
        partition::{Partition, Partitions},
        user_id::UserId,
    },
    store::{
        postgres::{Drift, Postgres, QuotaRow},
        redis::{Record, Redis},
    },
};

use super::flusher::FlushError;

/// Rows that are compared at a time.
const PAGE_ROWS: u32 = 1_000;
/// Entries that are read at a time.
const PAGE_ENTRIES: usize = 1_000;
/// How often a user who seems to differ is looked at again before that counts.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Compares the stores.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// Records and streams.
    pub redis: Redis,
    /// Rows.
    pub postgres: Postgres,
    /// All of them are compared.
    pub partitions: Partitions,
    /// Tells the current day.
    pub calendar: Calendar,
    /// The present.
    pub clock: Clock,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Users whose rows were compared.
    pub users: u64,
    /// Users who have a record in Redis.
    pub records: u64,
    /// Events that are in Redis and not yet in Postgres.
    pub unflushed: u64,
    /// Events that Postgres refused.
    pub dead_letters: u64,
    /// Totals that are not the sum of the log.
    pub drift: Vec<Drift>,
    /// Records that are not their row plus the events after the watermark.
    pub differences: Vec<Difference>,
}

/// A record that does not follow from Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose.
    pub user: UserId,
    /// What differs.
    pub what: &'static str,
    /// What the record says.
    pub redis: u64,
    /// What the row and the events after the watermark add up to.
    pub expected: u64,
}

/// What a partition's stream holds beyond Postgres.
#[derive(Debug, Clone)]
struct Tail {
    watermark: Watermark,
    /// AP per user and period.
    ap: HashMap<(UserId, Period), u64>,
    events: u64,
}

impl Verdict {
    /// Nothing differs.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.drift.is_empty() && self.differences.is_empty()
    }
}

impl Verifier {
    /// Compares every user.
    ///
    /// # Errors
    /// If Redis or Postgres is away.
    pub async fn verify(&self) -> Result<Verdict, FlushError> {
        let mut verdict = Verdict { dead_letters: self.postgres.dead_letter_count().await?, ..Verdict::default() };
        verdict.drift = self.postgres.drift().await?;
        let mut tails = HashMap::new();
        for partition in self.partitions.all() {
            let tail = self.tail(partition).await?;
            verdict.unflushed += tail.events;
            tails.insert(partition, tail);
        }
        let mut after: Option<UserId> = None;
        loop {
            let rows = self.postgres.rows_after(after.as_ref(), PAGE_ROWS).await?;
            let Some(last) = rows.last() else { return Ok(verdict) };
            after = Some(last.user.clone());
            verdict.users += rows.len() as u64;
            let mut by_partition: HashMap<Partition, Vec<QuotaRow>> = HashMap::new();
            for row in rows {
                by_partition.entry(self.partitions.of(&row.user)).or_default().push(row);
            }
            for (partition, rows) in by_partition {
                self.compare(partition, &tails[&partition], rows, &mut verdict).await?;
            }
        }
    }

    async fn compare(
        &self,
        partition: Partition,
        tail: &Tail,
        rows: Vec<QuotaRow>,
        verdict: &mut Verdict,
    ) -> Result<(), FlushError> {
        let users: Vec<&UserId> = rows.iter().map(|row| &row.user).collect();
        let records = self.redis.records(partition, &users).await?;
        for (row, record) in rows.iter().zip(records) {
            let Some(record) = record else { continue };
            verdict.records += 1;
            if difference(row, &record, tail).is_some()
                && let Some(difference) = self.look_again(partition, &row.user).await?
            {
                verdict.differences.push(difference);
            }
        }
        Ok(())
    }

    /// Between two looks, traffic may have moved one store and not yet the other.
    async fn look_again(&self, partition: Partition, user: &UserId) -> Result<Option<Difference>, FlushError> {
        let today = self.calendar.day_start(self.calendar.day_at(self.clock.now()));
        let mut found = None;
        for _ in 0..LOOKS {
            let tail = self.tail(partition).await?;
            let record = self.redis.record(partition, user).await?;
            let row = self.postgres.find(user, today).await?;
            let unmoved = self.tail(partition).await?.watermark == tail.watermark;
            let (Some(record), Some(row)) = (record, row) else { return Ok(None) };
            found = difference(&row, &record, &tail);
            if found.is_none() {
                return Ok(None);
            }
            if unmoved {
                sleep(LOOK_PAUSE).await;
            }
        }
        Ok(found)
    }

    async fn tail(&self, partition: Partition) -> Result<Tail, FlushError> {
        let watermark = self.postgres.watermark(partition.number()).await?;
        let mut tail = Tail { watermark, ap: HashMap::new(), events: 0 };
        let Some(position) = watermark.position else { return Ok(tail) };
        let mut from = position.id;
        loop {
            let page = self.redis.read_stream(partition, watermark.generation, from, PAGE_ENTRIES).await?;
            for event in page.iter().filter(|entry| entry.id > position.id).flat_map(Entry::events) {
                *tail.ap.entry((event.user.clone(), event.period)).or_default() += u64::from(event.ap.get());
                tail.events += 1;
            }
            match page.last() {
                Some(last) if page.len() == PAGE_ENTRIES => from = StreamId { ms: last.id.ms, seq: last.id.seq + 1 },
                _ => return Ok(tail),
            }
        }
    }
}

fn difference(row: &QuotaRow, record: &Record, tail: &Tail) -> Option<Difference> {
    // A record of an older generation is not used any more: the next touch replaces it from Postgres.
    if record.generation != tail.watermark.generation {
        return None;
    }
    let differ = |what, redis: u64, expected: u64| {
        (redis != expected).then(|| Difference { user: row.user.clone(), what, redis, expected })
    };
    let in_tail = |period: Option<Period>| -> u64 {
        tail.ap
            .iter()
            .filter(|((user, of), _)| *user == row.user && period.is_none_or(|period| period == *of))
            .map(|(_, ap)| ap)
            .sum()
    };
    let used_so_far = if row.period == record.period { u64::from(row.used.get()) } else { 0 };
    differ("total used", record.total_used, row.total_used + in_tail(None)).or_else(|| {
        // A row that is ahead was rolled for a user who has not come since.
        if row.period > record.period {
            return None;
        }
        differ("used", record.used.get().into(), used_so_far + in_tail(Some(record.period)))
    })
}
