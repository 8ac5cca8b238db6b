//! The verifier: proves that Σ log = totals = Redis, user by user, while traffic goes on.
//!
//! Postgres against itself in one snapshot. Redis against Postgres by the identity that the whole design stands on: a record
//! is what its row says, plus the events after the watermark. Rows and watermarks come from one snapshot of Postgres, records and
//! events from one transaction of Redis, so both sides are exact, and a difference is one. Records without a row are looked for too.

use std::{cmp::Ordering, collections::HashMap, time::Duration};

use tokio::time::sleep;

use crate::{
    domain::{
        calendar::Period,
        journal::{Content, Entry, Watermark},
        partition::{Partition, Partitions},
        user_id::UserId,
    },
    gate::Gate,
    store::{
        postgres::{Drift, Postgres, QuotaRow, UsageDrift},
        redis::{Record, Redis, View},
    },
};

use super::error::AuditError;

/// Rows that are compared at a time.
const PAGE_ROWS: u32 = 1_000;
/// How often a partition is looked at again that was flushed or opened between the two looks, before that is an error.
const LOOKS: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Compares the stores.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// Records and streams.
    pub redis: Redis,
    /// Rows.
    pub postgres: Postgres,
    /// All of them are compared.
    pub partitions: Partitions,
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
    /// Settlements that Postgres accepted and that are not made yet.
    pub inbox: u64,
    /// Totals that are not the sum of the log.
    pub drift: Vec<Drift>,
    /// Sums by day, level and model that are not those of the log.
    pub usage_drift: Vec<UsageDrift>,
    /// Records that are not their row plus the events after the watermark.
    pub differences: Vec<RecordDifference>,
}

/// A record that does not follow from Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDifference {
    /// Whose.
    pub user: UserId,
    /// The period of the record.
    pub period: Period,
    /// AP used in that period, by the record and by Postgres with what is not flushed. Equal where the row is ahead, and where a record of
    /// an older generation is behind.
    pub used: (u64, u64),
    /// AP used ever, in the same order.
    pub total_used: (u64, u64),
    /// AP of this user that Postgres refused.
    pub dead_letters: u64,
    /// There are entries of this user's partition that nobody could read: they may hold what Postgres misses.
    pub unreadable: bool,
}

/// Some users, compared.
#[derive(Debug, Clone, Default)]
pub struct ComparedPage {
    /// How many.
    pub users: u64,
    /// Those who have a record in Redis.
    pub records: u64,
    /// Records that are not their row plus the events after the watermark, in the order of users.
    pub differences: Vec<RecordDifference>,
    /// The last user: where to go on. None when there were none.
    pub last: Option<UserId>,
}

/// One user on both sides, at one moment.
#[derive(Debug, Clone)]
pub struct Compared {
    /// In Postgres.
    pub row: QuotaRow,
    /// In Redis, if there.
    pub record: Option<Record>,
    /// AP that is journalled and not in Postgres yet.
    pub unflushed: u64,
    /// What cannot be explained by that.
    pub difference: Option<RecordDifference>,
}

impl Verdict {
    /// Nothing differs.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.drift.is_empty() && self.usage_drift.is_empty() && self.differences.is_empty()
    }
}

impl RecordDifference {
    /// What probably happened.
    #[must_use]
    pub fn reason(&self) -> String {
        let (redis, postgres) = if self.used.0 == self.used.1 { self.total_used } else { self.used };
        if redis > postgres && redis - postgres == self.dead_letters {
            return format!("{} AP are in dead letters: replay them", self.dead_letters);
        }
        if redis > postgres && self.unreadable {
            return "an entry that nobody could read may hold the charges: replay the dead letters first".to_owned();
        }
        if redis > postgres {
            "Postgres misses charges: was it restored from an older copy?".to_owned()
        } else {
            "the record misses charges: was it changed by hand?".to_owned()
        }
    }
}

impl Verifier {
    /// The verifier of this gate's installation.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { redis: gate.redis().clone(), postgres: gate.postgres().clone(), partitions: gate.partitions() }
    }

    /// Compares every user.
    ///
    /// # Errors
    /// If Redis or Postgres is away, or a partition is not open.
    pub async fn verify(&self) -> Result<Verdict, AuditError> {
        let mut verdict = Verdict {
            dead_letters: self.postgres.dead_letter_count().await?,
            inbox: self.postgres.inbox_waiting().await?.0,
            drift: self.postgres.drift().await?,
            usage_drift: self.postgres.usage_drift().await?,
            ..Verdict::default()
        };
        for partition in self.partitions.all() {
            let (_, view) = self.look(partition, &[]).await?;
            verdict.unflushed += view.tail.iter().map(|entry| entry.events().len() as u64).sum::<u64>();
            for stray in self.orphan_records(partition).await? {
                verdict.differences.push(self.with_letters(partition, stray).await?);
            }
        }
        let mut after: Option<UserId> = None;
        loop {
            let page = self.compare_page(after.as_ref(), PAGE_ROWS).await?;
            let Some(last) = page.last else { return Ok(verdict) };
            after = Some(last);
            verdict.users += page.users;
            verdict.records += page.records;
            verdict.differences.extend(page.differences);
        }
    }

    /// Compares up to `limit` users after `after`, in the order of their ids.
    ///
    /// # Errors
    /// If Redis or Postgres is away, or a partition is not open.
    pub async fn compare_page(&self, after: Option<&UserId>, limit: u32) -> Result<ComparedPage, AuditError> {
        let page = self.postgres.rows_after(after, limit).await?;
        let mut compared = ComparedPage { users: page.rows.len() as u64, ..ComparedPage::default() };
        compared.last = page.rows.last().map(|row| row.user.clone());
        let mut by_partition: HashMap<Partition, Vec<QuotaRow>> = HashMap::new();
        for row in page.rows {
            by_partition.entry(self.partitions.of(&row.user)).or_default().push(row);
        }
        for (partition, rows) in by_partition {
            for user in self.compare(partition, page.watermarks[partition.index()], rows).await? {
                compared.records += u64::from(user.record.is_some());
                if let Some(found) = user.difference {
                    compared.differences.push(self.with_letters(partition, found).await?);
                }
            }
        }
        compared.differences.sort_by(|one, other| one.user.cmp(&other.user));
        Ok(compared)
    }

    /// Compares one user; none who has no row.
    ///
    /// # Errors
    /// If Redis or Postgres is away, or the partition is not open.
    pub async fn compare_user(&self, user: &UserId) -> Result<Option<Compared>, AuditError> {
        let partition = self.partitions.of(user);
        let page = self.postgres.rows_of(&[user]).await?;
        Ok(self.compare(partition, page.watermarks[partition.index()], page.rows).await?.pop())
    }

    /// Compares the rows of a partition with Redis; reads them again for as long as they are overtaken.
    async fn compare(
        &self,
        partition: Partition,
        mut watermark: Watermark,
        mut rows: Vec<QuotaRow>,
    ) -> Result<Vec<Compared>, AuditError> {
        for _ in 0..LOOKS {
            let users: Vec<&UserId> = rows.iter().map(|row| &row.user).collect();
            let view = match watermark.position {
                Some(from) => self.redis.view(partition, (watermark.generation, from), &users).await?,
                None => None,
            };
            if let Some(view) = view {
                let tail = Tail::of(&view.tail);
                let compared = rows.into_iter().zip(view.records);
                return Ok(compared.map(|(row, record)| tail.compare(row, record, watermark.generation)).collect());
            }
            sleep(LOOK_PAUSE).await;
            let page = self.postgres.rows_of(&users).await?;
            (watermark, rows) = (page.watermarks[partition.index()], page.rows);
        }
        Err(AuditError::Closed(partition))
    }

    /// Some records of a partition, and what it has journalled beyond the watermark, at one moment; and its generation.
    pub(super) async fn look(&self, partition: Partition, users: &[&UserId]) -> Result<(u32, View), AuditError> {
        for _ in 0..LOOKS {
            let watermark = self.postgres.watermark(partition.number()).await?;
            if let Some(from) = watermark.position
                && let Some(view) = self.redis.view(partition, (watermark.generation, from), users).await?
            {
                return Ok((watermark.generation, view));
            }
            sleep(LOOK_PAUSE).await;
        }
        Err(AuditError::Closed(partition))
    }

    async fn with_letters(
        &self,
        partition: Partition,
        found: RecordDifference,
    ) -> Result<RecordDifference, AuditError> {
        let (dead_letters, unreadable) = self.postgres.letters_about(&found.user, partition.number()).await?;
        Ok(RecordDifference { dead_letters, unreadable: unreadable || found.unreadable, ..found })
    }
}

/// What is journalled beyond the watermark.
pub(super) struct Tail<'a> {
    /// AP per user and period.
    ap: HashMap<&'a UserId, HashMap<Period, u64>>,
    /// There are entries that nobody can read: dead letters to be.
    unreadable: bool,
}

impl<'a> Tail<'a> {
    pub(super) fn of(entries: &'a [Entry]) -> Self {
        let mut ap: HashMap<&UserId, HashMap<Period, u64>> = HashMap::new();
        for event in entries.iter().flat_map(Entry::events) {
            *ap.entry(&event.user).or_default().entry(event.period).or_default() += u64::from(event.ap.get());
        }
        let unreadable = entries.iter().any(|entry| matches!(entry.content, Content::Unreadable { .. }));
        Self { ap, unreadable }
    }

    /// What a record knows of a user of whom nothing else does.
    pub(super) fn unknown(&self, whose: &UserId, record: &Record, generation: u32) -> Option<RecordDifference> {
        let used = (u64::from(record.used.get()), self.in_period(whose, record.period));
        let total_used = (record.total_used, self.ever(whose));
        self.difference(whose, record, generation, used, total_used)
    }

    fn difference(
        &self,
        whose: &UserId,
        record: &Record,
        generation: u32,
        mut used: (u64, u64),
        mut total_used: (u64, u64),
    ) -> Option<RecordDifference> {
        if record.generation != generation {
            // The next touch replaces a record of an older generation by the larger of it and its row, and every charge of that generation
            // that survived is in Postgres by now. So it may be behind; what it has more is what Postgres lost.
            for (recorded, known) in [&mut used, &mut total_used] {
                *recorded = (*recorded).max(*known);
            }
        }
        let differs = used.0 != used.1 || total_used.0 != total_used.1;
        differs.then(|| RecordDifference {
            user: whose.clone(),
            period: record.period,
            used,
            total_used,
            dead_letters: 0,
            unreadable: self.unreadable,
        })
    }

    fn in_period(&self, user: &UserId, period: Period) -> u64 {
        self.ap.get(user).and_then(|periods| periods.get(&period)).copied().unwrap_or(0)
    }

    fn ever(&self, user: &UserId) -> u64 {
        self.ap.get(user).map_or(0, |periods| periods.values().sum())
    }

    fn compare(&self, row: QuotaRow, record: Option<Record>, generation: u32) -> Compared {
        let difference = record.as_ref().and_then(|record| difference(&row, record, generation, self));
        Compared { unflushed: self.ever(&row.user), row, record, difference }
    }
}

fn difference(row: &QuotaRow, record: &Record, generation: u32, tail: &Tail<'_>) -> Option<RecordDifference> {
    let recorded = u64::from(record.used.get());
    let used = match row.period.cmp(&record.period) {
        // A row that is ahead was rolled for a user who has not come since.
        Ordering::Greater => (recorded, recorded),
        Ordering::Equal => (recorded, u64::from(row.used.get()) + tail.in_period(&row.user, record.period)),
        Ordering::Less => (recorded, tail.in_period(&row.user, record.period)),
    };
    let total_used = (record.total_used, row.total_used + tail.ever(&row.user));
    tail.difference(&row.user, record, generation, used, total_used)
}
