//! Proves that Σ log = totals = Redis for every user, also during traffic.
//!
//! Postgres is compared with itself in one snapshot, and Redis with Postgres by the identity that the design rests on:
//! a record is its row plus the events after the watermark, and what is left of a grant too (`grant_difference`). Rows
//! and watermarks come from one Postgres snapshot, records and events from one Redis transaction, so both sides are
//! exact and every difference is real. Records without a row are searched for too. `level_drift` compares levels and
//! quotas.

use std::{cmp::Ordering, collections::HashMap, time::Duration};

use tokio::time::sleep;

use crate::{
    domain::{
        calendar::Period,
        journal::{Content, Entry, Watermark},
        level::Levels,
        meter::MeterCode,
        partition::{Partition, Partitions},
        user_id::UserId,
    },
    gate::Gate,
    store::{
        postgres::{
            Drift, GrantDrift, MeterDrift, Page, Postgres, PostgresError, QuotaDrift, QuotaRow, TransferDrift,
            UsageDrift,
        },
        redis::{Record, Redis, View},
    },
};

use super::{
    error::AuditError,
    grant_difference::{self, GrantDifference},
    level_drift::LevelDrift,
    unflushed::Unflushed,
    window_difference::{self, WindowDifference},
};

/// Rows compared at a time.
const PAGE_ROWS: u32 = 1_000;
/// Attempts to read a partition that is flushed or opened between the two reads, before this is an error.
const ATTEMPTS_MAX: u32 = 100;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// Compares the stores.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// Source of records and streams.
    pub redis: Redis,
    /// Source of rows.
    pub postgres: Postgres,
    /// All partitions. Each is compared.
    pub partitions: Partitions,
}

/// Result of a verification.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Users whose rows were compared.
    pub users: u64,
    /// Users with a record in Redis.
    pub records: u64,
    /// Events in Redis that are not in Postgres yet.
    pub unflushed: u64,
    /// Events that Postgres refused.
    pub dead_letters: u64,
    /// Settlements that Postgres accepted and that are not applied yet.
    pub inbox: u64,
    /// Totals that differ from the sum of the log.
    pub drift: Vec<Drift>,
    /// Sums by day, level and model that differ from those of the log.
    pub usage_drift: Vec<UsageDrift>,
    /// Grants that differ from the log.
    pub grant_drift: Vec<GrantDrift>,
    /// Periods of other meters that differ from the log.
    pub meter_drift: Vec<MeterDrift>,
    /// Transfers that differ from the grants that they made.
    pub transfer_drift: Vec<TransferDrift>,
    /// Records that differ from their row plus the events after the watermark.
    pub differences: Vec<RecordDifference>,
    /// Rows whose quota is not that of their level.
    pub quota_drift: Vec<QuotaDrift>,
    /// Records whose level or quota is not that of their row.
    pub level_drift: Vec<LevelDrift>,
}

/// A record that does not match Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDifference {
    /// User of the record.
    pub user: UserId,
    /// Meter of the record.
    pub meter: MeterCode,
    /// Period of the record.
    pub period: Period,
    /// AP used in that period, by the record and by Postgres plus unflushed events. Equal if the row is ahead, or a
    /// record of an older generation is behind.
    pub used: (u64, u64),
    /// AP used in total, in the same order.
    pub total_used: (u64, u64),
    /// Grants of which another amount is left.
    pub grants: Vec<GrantDifference>,
    /// Windows that have counted another amount.
    pub windows: Vec<WindowDifference>,
    /// AP of this user that Postgres refused.
    pub dead_letters: u64,
    /// Whether the user's partition has unreadable entries, which may contain what Postgres lacks.
    pub unreadable: bool,
}

/// The comparison of some users.
#[derive(Debug, Clone, Default)]
pub struct ComparedPage {
    /// Number of users.
    pub users: u64,
    /// Users with a record in Redis.
    pub records: u64,
    /// Records that differ from their row plus the events after the watermark, ordered by user.
    pub differences: Vec<RecordDifference>,
    /// Records whose level or quota is not that of their row.
    pub level_drift: Vec<LevelDrift>,
    /// Last user, after which to continue. None if there were no users.
    pub last: Option<UserId>,
}

/// One user and meter in both stores, at one moment.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The meter.
    pub meter: MeterCode,
    /// Row in Postgres.
    pub row: QuotaRow,
    /// Record in Redis, if any.
    pub record: Option<Record>,
    /// AP that is journalled and not in Postgres yet.
    pub unflushed: u64,
    /// Difference that `unflushed` does not explain.
    pub difference: Option<RecordDifference>,
    /// Generation of the partition.
    pub generation: u32,
}

impl Verdict {
    /// Returns true if nothing differs.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.drift.is_empty()
            && self.usage_drift.is_empty()
            && self.grant_drift.is_empty()
            && self.meter_drift.is_empty()
            && self.transfer_drift.is_empty()
            && self.differences.is_empty()
            && self.quota_drift.is_empty()
            && self.level_drift.is_empty()
    }
}

impl RecordDifference {
    /// Whether the record lacks charges that Postgres has.
    pub(super) fn is_of_record(&self) -> bool {
        self.used.0 < self.used.1
            || self.total_used.0 < self.total_used.1
            || self.grants.iter().any(|grant| grant.left.0 > grant.left.1)
            || self.windows.iter().any(|window| window.counted.0 < window.counted.1)
    }

    /// Whether the record has all charges of Postgres and no others, but has counted more in windows.
    fn is_of_windows(&self) -> bool {
        self.used.0 == self.used.1 && self.total_used.0 == self.total_used.1 && self.grants.is_empty()
    }

    /// Returns the probable cause.
    #[must_use]
    pub fn reason(&self) -> String {
        if self.is_of_windows() && !self.is_of_record() {
            return "the log lacks what its windows have counted: it was probably restored from an older copy"
                .to_owned();
        }
        let (redis, postgres) = match self.grants.first() {
            _ if self.used.0 != self.used.1 => self.used,
            // What Redis has less of a grant, it has charged more.
            Some(grant) if self.total_used.0 == self.total_used.1 => (grant.left.1, grant.left.0),
            _ => self.total_used,
        };
        if redis > postgres && redis - postgres == self.dead_letters {
            return format!("{} AP are in dead letters: replay them", self.dead_letters);
        }
        if redis > postgres && self.unreadable {
            return "an entry that this gate cannot read may contain the charges: upgrade it, and replay the dead letters first"
                .to_owned();
        }
        if redis > postgres {
            "charges are missing in Postgres: it was probably restored from an older copy".to_owned()
        } else {
            "charges are missing in the record: it was probably changed by hand".to_owned()
        }
    }
}

impl Verifier {
    /// Creates a verifier for this gate's installation.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { redis: gate.redis().clone(), postgres: gate.postgres().clone(), partitions: gate.partitions() }
    }

    /// Compares every user.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable, or a partition is not open.
    pub async fn verify(&self) -> Result<Verdict, AuditError> {
        let mut verdict = Verdict {
            dead_letters: self.postgres.dead_letter_count().await?,
            inbox: self.postgres.inbox_waiting().await?.0,
            drift: self.postgres.drift().await?,
            usage_drift: self.postgres.usage_drift().await?,
            grant_drift: self.postgres.grant_drift().await?,
            meter_drift: self.postgres.meter_drift().await?,
            transfer_drift: self.postgres.transfer_drift().await?,
            quota_drift: self.postgres.quota_drift().await?,
            ..Verdict::default()
        };
        for partition in self.partitions.all() {
            let (_, view) = self.read(partition, (MeterCode::CHAT, &[])).await?;
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
            verdict.level_drift.extend(page.level_drift);
        }
    }

    /// Compares up to `limit` users after `after`, in the order of their ids.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable, or a partition is not open.
    pub async fn compare_page(&self, after: Option<&UserId>, limit: u32) -> Result<ComparedPage, AuditError> {
        let page = self.postgres.rows_after(after, limit).await?;
        let mut compared = ComparedPage { users: page.rows.len() as u64, ..ComparedPage::default() };
        compared.last = page.rows.last().map(|row| row.user.clone());
        let (levels, all) = (self.levels().await?, self.postgres.all_levels().await?);
        let mut suspects = Vec::new();
        let users: Vec<UserId> = page.rows.iter().map(|row| row.user.clone()).collect();
        self.compare_rows(MeterCode::CHAT, page, levels.as_ref(), (&mut compared, &mut suspects)).await?;
        for meter in all.meters() {
            let page = self.postgres.meter_rows_of(&users.iter().collect::<Vec<_>>(), meter.code).await?;
            self.compare_rows(meter.code, page, levels.as_ref(), (&mut compared, &mut suspects)).await?;
        }
        suspects.sort();
        compared.level_drift = self.confirm(suspects).await?;
        compared.differences.sort_by(|one, other| (&one.user, one.meter).cmp(&(&other.user, other.meter)));
        Ok(compared)
    }

    /// Compares rows of a meter; adds what differs to `compared`, and users whose level differs to `suspects`.
    async fn compare_rows(
        &self,
        meter: MeterCode,
        page: Page,
        levels: Option<&Levels>,
        (compared, suspects): (&mut ComparedPage, &mut Vec<(UserId, MeterCode)>),
    ) -> Result<(), AuditError> {
        let mut by_partition: HashMap<Partition, Vec<QuotaRow>> = HashMap::new();
        for row in page.rows {
            by_partition.entry(self.partitions.of(&row.user)).or_default().push(row);
        }
        for (partition, rows) in by_partition {
            for user in self.compare((partition, meter), page.watermarks[partition.index()], rows).await? {
                compared.records += u64::from(user.record.is_some());
                if LevelDrift::of(&user, levels).is_some() {
                    suspects.push((user.row.user.clone(), meter));
                }
                if let Some(found) = user.difference {
                    compared.differences.push(self.with_letters(partition, found).await?);
                }
            }
        }
        Ok(())
    }

    async fn rows_of(&self, users: &[&UserId], meter: MeterCode) -> Result<Page, PostgresError> {
        if meter.is_chat() {
            self.postgres.rows_of(users).await
        } else {
            self.postgres.meter_rows_of(users, meter).await
        }
    }

    /// Compares the chat of one user. Returns none for a user without a row.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable, or the partition is not open.
    pub async fn compare_user(&self, user: &UserId) -> Result<Option<Compared>, AuditError> {
        self.compare_account(user, MeterCode::CHAT).await
    }

    /// Compares one user and meter. Returns none for a user without a row.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable, or the partition is not open.
    pub async fn compare_account(&self, user: &UserId, meter: MeterCode) -> Result<Option<Compared>, AuditError> {
        let partition = self.partitions.of(user);
        let page = self.rows_of(&[user], meter).await?;
        Ok(self.compare((partition, meter), page.watermarks[partition.index()], page.rows).await?.pop())
    }

    /// Compares the rows of a partition with Redis. Reads them again if a flush or an opening overtook them.
    async fn compare(
        &self,
        (partition, meter): (Partition, MeterCode),
        mut watermark: Watermark,
        mut rows: Vec<QuotaRow>,
    ) -> Result<Vec<Compared>, AuditError> {
        for _ in 0..ATTEMPTS_MAX {
            let users: Vec<&UserId> = rows.iter().map(|row| &row.user).collect();
            let view = match watermark.position {
                Some(from) => self.redis.view(partition, (watermark.generation, from), (meter, &users)).await?,
                None => None,
            };
            if let Some(view) = view {
                let tail = Tail::of(&view.tail, meter);
                let compared = rows.into_iter().zip(view.records);
                return Ok(compared.map(|(row, record)| tail.compare(row, record, watermark.generation)).collect());
            }
            sleep(ATTEMPT_PAUSE).await;
            let page = self.rows_of(&users, meter).await?;
            (watermark, rows) = (page.watermarks[partition.index()], page.rows);
        }
        Err(AuditError::Closed(partition))
    }

    /// Reads some records of a partition and a meter, and the journal after the watermark, at one moment, and the
    /// generation.
    pub(super) async fn read(
        &self,
        partition: Partition,
        accounts: (MeterCode, &[&UserId]),
    ) -> Result<(u32, View), AuditError> {
        for _ in 0..ATTEMPTS_MAX {
            let watermark = self.postgres.watermark(partition.number()).await?;
            if let Some(from) = watermark.position
                && let Some(view) = self.redis.view(partition, (watermark.generation, from), accounts).await?
            {
                return Ok((watermark.generation, view));
            }
            sleep(ATTEMPT_PAUSE).await;
        }
        Err(AuditError::Closed(partition))
    }

    /// Returns a user's record of a meter, and the journal of the user's partition after the watermark.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable, or the partition is not open.
    pub async fn journalled(
        &self,
        user: &UserId,
        meter: MeterCode,
    ) -> Result<(Option<Record>, Vec<Entry>), AuditError> {
        let (_, view) = self.read(self.partitions.of(user), (meter, &[user])).await?;
        Ok((view.records.into_iter().flatten().next(), view.tail))
    }

    async fn with_letters(
        &self,
        partition: Partition,
        found: RecordDifference,
    ) -> Result<RecordDifference, AuditError> {
        let (dead_letters, unreadable) =
            self.postgres.letters_about((&found.user, found.meter), partition.number()).await?;
        Ok(RecordDifference { dead_letters, unreadable: unreadable || found.unreadable, ..found })
    }
}

/// The journal of a meter after the watermark.
pub(super) struct Tail<'a> {
    meter: MeterCode,
    users: HashMap<&'a UserId, Unflushed>,
    /// Whether there are entries that this gate cannot read: a newer one can, or they will become dead letters.
    unreadable: bool,
}

impl<'a> Tail<'a> {
    pub(super) fn of(entries: &'a [Entry], meter: MeterCode) -> Self {
        let mut users: HashMap<&UserId, Unflushed> = HashMap::new();
        for event in entries.iter().flat_map(Entry::events).filter(|event| event.meter == meter) {
            users.entry(&event.user).or_default().add(event);
        }
        let unreadable =
            entries.iter().any(|entry| matches!(entry.content, Content::Unreadable { .. } | Content::Newer { .. }));
        Self { meter, users, unreadable }
    }

    /// Compares the record of a user without a row.
    pub(super) fn unknown(&self, user: &UserId, record: &Record, generation: u32) -> Option<RecordDifference> {
        let in_period = (u64::from(record.used.get()), self.in_period(user, record.period));
        let total_used = (record.total_used, self.ever(user));
        self.difference(user, record, generation, (in_period, total_used), (Vec::new(), Vec::new()))
    }

    fn difference(
        &self,
        user: &UserId,
        record: &Record,
        generation: u32,
        (mut in_period, mut total_used): ((u64, u64), (u64, u64)),
        (grants, windows): (Vec<GrantDifference>, Vec<WindowDifference>),
    ) -> Option<RecordDifference> {
        if record.generation != generation {
            // The next access replaces a record of an older generation by the larger of it and its row, and every
            // charge of that generation that survived is in Postgres by now. So the record may be behind; what it has
            // more was lost by Postgres.
            for (recorded, known) in [&mut in_period, &mut total_used] {
                *recorded = (*recorded).max(*known);
            }
        }
        let differs =
            in_period.0 != in_period.1 || total_used.0 != total_used.1 || !grants.is_empty() || !windows.is_empty();
        differs.then(|| RecordDifference {
            user: user.clone(),
            meter: self.meter,
            period: record.period,
            used: in_period,
            total_used,
            grants,
            windows,
            dead_letters: 0,
            unreadable: self.unreadable,
        })
    }

    fn in_period(&self, user: &UserId, period: Period) -> u64 {
        self.users.get(user).and_then(|user| user.plan.get(&period)).copied().unwrap_or(0)
    }

    fn ever(&self, user: &UserId) -> u64 {
        self.users.get(user).map_or(0, |user| user.total)
    }

    fn compare(&self, row: QuotaRow, record: Option<Record>, generation: u32) -> Compared {
        let difference = record.as_ref().and_then(|record| difference(&row, record, generation, self));
        Compared { meter: self.meter, unflushed: self.ever(&row.user), row, record, difference, generation }
    }
}

fn difference(row: &QuotaRow, record: &Record, generation: u32, tail: &Tail<'_>) -> Option<RecordDifference> {
    let recorded = u64::from(record.used.get());
    let used = match row.period.cmp(&record.period) {
        // A row that is ahead was rolled for a user who has sent nothing since.
        Ordering::Greater => (recorded, recorded),
        Ordering::Equal => (recorded, u64::from(row.used.get()) + tail.in_period(&row.user, record.period)),
        Ordering::Less => (recorded, tail.in_period(&row.user, record.period)),
    };
    let total_used = (record.total_used, row.total_used + tail.ever(&row.user));
    let none = Unflushed::default();
    let unflushed = tail.users.get(&row.user).unwrap_or(&none);
    let grants = grant_difference::differences(row, record, generation, &unflushed.grants);
    let windows = window_difference::differences(row, record, generation, &unflushed.windows);
    tail.difference(&row.user, record, generation, (used, total_used), (grants, windows))
}
