//! Forgets a user: replaces the id by a pseudonym in both stores.
//!
//! 1. Postgres keeps the id from coming back: from here on, no row is created for it.
//! 2. Redis: a mark replaces the record of each meter. From here on no operation finds the user, and no seed creates a
//!    record.
//! 3. What was charged before is flushed.
//! 4. Postgres replaces the id in every table, in one transaction.
//!
//! If it is interrupted, the mark expires, and the user is served as before until a second run completes it, with the
//! same pseudonym.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{error::AuditError, verify::Verifier};
use crate::{
    domain::{
        author::Author,
        calendar::Calendar,
        clock::Clock,
        journal::{Content, Entry},
        meter::MeterCode,
        partition::Partition,
        user_id::UserId,
    },
    gate::Gate,
    store::{
        postgres::{PostgresError, Traces},
        redis::{ReadRecord, Record, RedisError},
    },
};

/// How long the mark is kept: longer than the transaction in Postgres takes for millions of rows.
const MARK_KEPT: Duration = Duration::from_hours(1);
/// How long it is kept afterwards: longer than a gate takes to send a seed that it has read before.
const MARK_KEPT_AFTER: Duration = Duration::from_mins(2);
/// Attempts to replace a record that changes meanwhile.
const ATTEMPTS_MAX: u32 = 200;
/// How long to wait until everything is flushed.
const FLUSHED_WITHIN: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(50);

/// Forgets users.
#[derive(Debug, Clone)]
pub struct Forgetter {
    verifier: Verifier,
    calendar: Calendar,
    clock: Clock,
}

/// What the stores have about a user.
#[derive(Debug, Clone)]
pub struct Found {
    /// What Postgres has.
    pub traces: Traces,
    /// The record of the chat in Redis.
    pub record: Option<Record>,
    /// Live holds, on all meters.
    pub live_holds: usize,
    /// Charges that are not in Postgres yet.
    pub unflushed: usize,
}

/// Whether to give up what is not settled: live holds, accepted settlements, charges for the old credits system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsettled {
    /// Refuse, and change nothing.
    Refuse,
    /// Give it up.
    GiveUp,
}

/// Why a user is not forgotten. It is safe to run it again.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// A store is unavailable, or the partition is not open.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Holds are live.
    #[error("{0} reservations of the user are live: wait until they are settled or expire, or give them up (--force)")]
    LiveHolds(usize),
    /// Accepted settlements are not applied yet.
    #[error("{0} settlements of the user wait in the inbox: wait until they are applied, or give them up (--force)")]
    InboxWaits(u64),
    /// The old credits system has not got all charges.
    #[error(
        "{0} charges of the user wait for the old credits system: wait until it has them, or give them up (--force)"
    )]
    DualWritesWait(u64),
    /// The role may not change the log.
    #[error("this Postgres role may not change the usage log: run `quota-gate forget` as the tables' owner")]
    Role,
    /// The record changed each time it was read.
    #[error("the user sends messages all the time: block the user first (`quota-gate users block`), then run it again")]
    Busy,
    /// Charges stay in the journal.
    #[error("the charges in Redis were not flushed within {FLUSHED_WITHIN:?}: {0}; run it again")]
    Unflushed(String),
}

impl From<PostgresError> for ForgetError {
    fn from(error: PostgresError) -> Self {
        Self::Audit(error.into())
    }
}

impl From<RedisError> for ForgetError {
    fn from(error: RedisError) -> Self {
        Self::Audit(error.into())
    }
}

impl Forgetter {
    /// Forgets users of this gate's installation.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { verifier: Verifier::new(gate), calendar: gate.calendar(), clock: gate.clock().clone() }
    }

    /// Returns what the stores have about a user. Changes nothing.
    ///
    /// # Errors
    /// If a store is unavailable, or the partition is not open.
    pub async fn find(&self, user: &UserId) -> Result<Found, ForgetError> {
        let Verifier { redis, postgres, partitions } = &self.verifier;
        let partition = partitions.of(user);
        let traces = postgres.traces(user, partition.number()).await?;
        let record = redis.read_record(partition, (user, MeterCode::CHAT)).await?.record;
        let live_holds = self.live_holds_of(partition, user).await?;
        let unflushed = self.tail(partition, user).await?.0;
        Ok(Found { traces, record, live_holds, unflushed })
    }

    /// Replaces the user's id by a pseudonym everywhere, and returns the pseudonym. `flush` flushes a partition; other
    /// gates may do it too.
    ///
    /// # Errors
    /// [`ForgetError`] says what to do. Unless the last step is done, the user is served as before once the mark has
    /// expired.
    pub async fn forget(
        &self,
        user: &UserId,
        unsettled: Unsettled,
        author: &Author,
        flush: impl AsyncFn(Partition) -> Result<(), String>,
    ) -> Result<UserId, ForgetError> {
        let postgres = &self.verifier.postgres;
        let partition = self.verifier.partitions.of(user);
        if !postgres.may_forget().await? {
            return Err(ForgetError::Role);
        }
        let known = postgres.is_forgotten(user).await?;
        let pseudonym = postgres.begin_to_forget(user, self.clock.now()).await?;
        if let Err(refused) = self.close(partition, user, unsettled).await {
            // Refused: the id may still be used. An interrupted run has decided already.
            if !known {
                postgres.readmit(user).await?;
            }
            return Err(refused);
        }
        self.flush(partition, user, flush).await?;
        postgres.forget(user, &pseudonym, author, self.clock.now()).await?;
        self.mark_all(partition, user, MARK_KEPT_AFTER).await?;
        Ok(pseudonym)
    }

    /// Lets a forgotten id return, as a new user. Returns false if it was not forgotten.
    ///
    /// # Errors
    /// If a store is unavailable, or the role may not change the log.
    pub async fn readmit(&self, user: &UserId) -> Result<bool, ForgetError> {
        let Verifier { redis, postgres, partitions } = &self.verifier;
        if !postgres.may_forget().await? {
            return Err(ForgetError::Role);
        }
        // As long as the id is refused, no record can take the place of the mark.
        if postgres.is_forgotten(user).await? {
            for meter in self.meters().await? {
                redis.unmark_forgotten(partitions.of(user), (user, meter)).await?;
            }
        }
        Ok(postgres.readmit(user).await?)
    }

    /// Steps 1 and 2 of an interrupted run, for tests.
    ///
    /// # Errors
    /// Like [`forget`](Self::forget).
    #[doc(hidden)]
    pub async fn forget_halfway(&self, user: &UserId) -> Result<(), ForgetError> {
        self.verifier.postgres.begin_to_forget(user, self.clock.now()).await?;
        self.close(self.verifier.partitions.of(user), user, Unsettled::Refuse).await
    }

    /// Replaces the records by the mark, unless something is unsettled.
    async fn close(&self, partition: Partition, user: &UserId, unsettled: Unsettled) -> Result<(), ForgetError> {
        if unsettled == Unsettled::GiveUp {
            return self.mark_all(partition, user, MARK_KEPT).await;
        }
        let traces = self.verifier.postgres.traces(user, partition.number()).await?;
        if traces.inbox_waiting > 0 {
            return Err(ForgetError::InboxWaits(traces.inbox_waiting));
        }
        if traces.dual_writes_waiting > 0 {
            return Err(ForgetError::DualWritesWait(traces.dual_writes_waiting));
        }
        let live = self.live_holds_of(partition, user).await?;
        if live > 0 {
            return Err(ForgetError::LiveHolds(live));
        }
        let meters = self.meters().await?;
        for (number, meter) in meters.iter().enumerate() {
            if let Err(refused) = self.close_record(partition, (user, *meter)).await {
                for marked in &meters[..number] {
                    self.verifier.redis.unmark_forgotten(partition, (user, *marked)).await?;
                }
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Replaces the record of a meter by the mark, unless a hold of it is live.
    async fn close_record(&self, partition: Partition, account: (&UserId, MeterCode)) -> Result<(), ForgetError> {
        let generation = self.verifier.postgres.watermark(partition.number()).await?.generation;
        for _ in 0..ATTEMPTS_MAX {
            let read = self.verifier.redis.read_record(partition, account).await?;
            let live = self.live_holds(generation, &read);
            if live > 0 {
                return Err(ForgetError::LiveHolds(live));
            }
            if self.mark(partition, account, Some(&read), MARK_KEPT).await? {
                return Ok(());
            }
        }
        Err(ForgetError::Busy)
    }

    /// All meters of the installation.
    async fn meters(&self) -> Result<Vec<MeterCode>, ForgetError> {
        let levels = self.verifier.postgres.all_levels().await?;
        let others = levels.meters().iter().map(|meter| meter.code);
        Ok(std::iter::once(MeterCode::CHAT).chain(others).collect())
    }

    /// Replaces any record of the user by the mark.
    async fn mark_all(&self, partition: Partition, user: &UserId, kept: Duration) -> Result<(), ForgetError> {
        for meter in self.meters().await? {
            self.mark(partition, (user, meter), None, kept).await?;
        }
        Ok(())
    }

    async fn mark(
        &self,
        partition: Partition,
        account: (&UserId, MeterCode),
        read: Option<&ReadRecord>,
        kept: Duration,
    ) -> Result<bool, ForgetError> {
        let period = self.calendar.month_at(self.clock.now());
        Ok(self.verifier.redis.mark_forgotten(partition, account, read, period, kept).await?)
    }

    /// Counts live holds of a user on all meters.
    async fn live_holds_of(&self, partition: Partition, user: &UserId) -> Result<usize, ForgetError> {
        let Verifier { redis, postgres, .. } = &self.verifier;
        let generation = postgres.watermark(partition.number()).await?.generation;
        let mut live = 0;
        for meter in self.meters().await? {
            live += self.live_holds(generation, &redis.read_record(partition, (user, meter)).await?);
        }
        Ok(live)
    }

    /// Counts live holds. Those of a record of an older generation hold nothing.
    fn live_holds(&self, generation: u32, read: &ReadRecord) -> usize {
        let Some(record) = read.record.as_ref().filter(|record| record.generation == generation) else { return 0 };
        let now_ms = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or_default();
        record.holds.iter().filter(|hold| hold.expiry_ms > now_ms).count()
    }

    /// Flushes until no charge of the user is in the journal after the watermark.
    async fn flush(
        &self,
        partition: Partition,
        user: &UserId,
        flush: impl AsyncFn(Partition) -> Result<(), String>,
    ) -> Result<(), ForgetError> {
        let deadline = Instant::now() + FLUSHED_WITHIN;
        loop {
            let flushed = flush(partition).await;
            let (unflushed, unreadable) = self.tail(partition, user).await?;
            if unflushed == 0 && !unreadable {
                return Ok(());
            }
            if Instant::now() > deadline {
                let reason = match flushed {
                    Err(error) => error,
                    Ok(()) if unreadable => "a newer program must flush them".to_owned(),
                    Ok(()) => format!("{unflushed} are left"),
                };
                return Err(ForgetError::Unflushed(reason));
            }
            sleep(PAUSE).await;
        }
    }

    /// Counts the user's charges after the watermark, and returns whether entries there are unreadable.
    async fn tail(&self, partition: Partition, user: &UserId) -> Result<(usize, bool), ForgetError> {
        let (_, view) = self.verifier.read(partition, (MeterCode::CHAT, &[])).await?;
        let unflushed = view.tail.iter().flat_map(Entry::events).filter(|event| event.user == *user).count();
        let newer = view.tail.iter().any(|entry| !matches!(entry.content, Content::Events(_)));
        Ok((unflushed, newer))
    }
}
