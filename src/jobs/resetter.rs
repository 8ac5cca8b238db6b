//! The resetter: rolls every row that is due into its current period.
//!
//! Resets do not depend on it: a period ends by the calendar, Redis and the flusher roll active users, and the resetter
//! rolls the others. So it may run a hundred times or never; it cannot grant quota.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;

use super::{inbox_worker, log_partitions::MONTHS_AHEAD, sweeper::Sweeper};
use crate::{
    domain::user_id::UserId,
    gate::Gate,
    store::postgres::{PostgresError, RolledBatch},
};

/// Rows per transaction. They are locked for about a tenth of a second, which delays only flushes and level changes.
const BATCH_ROWS: u32 = 5_000;
/// Tries of a batch, with a pause that doubles from 100 ms: about three seconds in total.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long billing events are known. Stripe repeats an event for three days, and people can repeat it for 30.
const SUBSCRIPTION_EVENTS_KEPT: TimeDelta = TimeDelta::days(35);

/// Rolls due rows.
#[derive(Debug, Clone)]
pub struct Resetter {
    gate: Gate,
    sweeper: Sweeper,
}

/// What started a reset run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// `POST /api/chat/quota/reset`
    Endpoint,
    /// The built-in schedule.
    Schedule,
    /// `quota-gate reset`
    CommandLine,
}

/// Result of a reset run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetReport {
    /// Number of rolled rows.
    pub reset_count: u64,
    /// Batches that failed after all tries. The next run rolls their rows.
    pub failed_count: u64,
    /// Duration of the run.
    pub duration: Duration,
}

impl Resetter {
    /// The resetter of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), sweeper: Sweeper::new(gate) }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.gate.now()
    }

    /// Runs once. Batches that fail are counted and left to the next run.
    ///
    /// # Errors
    /// If Postgres is unavailable when the run starts.
    pub async fn run(&self, trigger: Trigger) -> Result<ResetReport, PostgresError> {
        let started = Instant::now();
        let run = self.gate.postgres().begin_reset_run(trigger.as_str(), self.gate.now()).await?;
        let mut last_error = None;
        match self.gate.postgres().ensure_log_partitions(self.gate.now(), MONTHS_AHEAD).await {
            Ok(partitions) if partitions.blocked.is_empty() => {}
            // Not an error of the run: rows of a month without a partition go to the default partition.
            Ok(_) => tracing::warn!("a reader of the usage log blocks the creation of its partitions"),
            Err(error) => {
                tracing::error!(%error, "partitions of the usage log for the next months could not be created");
                last_error = Some(error.to_string());
            }
        }
        let (reset_count, failed_count) = self.roll_all(&mut last_error).await;
        match self.sweeper.sweep().await {
            Ok(swept) => tracing::info!(deleted = swept.deleted, freed = swept.freed, "swept records"),
            Err(error) => {
                tracing::warn!(%error, "records were not swept; the next run sweeps them");
                last_error.get_or_insert(error.to_string());
            }
        }
        if let Err(error) = self.gate.postgres().forget_settled(self.gate.now() - inbox_worker::KEPT).await {
            tracing::warn!(%error, "settled items of the inbox were not deleted; the next run deletes them");
        }
        let before = self.gate.now() - SUBSCRIPTION_EVENTS_KEPT;
        if let Err(error) = self.gate.postgres().forget_subscription_events(before).await {
            tracing::warn!(%error, "old billing events were not deleted; the next run deletes them");
        }
        let duration = started.elapsed();
        metrics::counter!("quota_gate_resets_total").increment(reset_count);
        tracing::info!(
            trigger = trigger.as_str(),
            reset_count,
            failed_count,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "reset run finished"
        );
        self.gate
            .postgres()
            .finish_reset_run(run, reset_count, failed_count, last_error.as_deref(), self.gate.now())
            .await?;
        Ok(ResetReport { reset_count, failed_count, duration })
    }

    async fn roll_all(&self, last_error: &mut Option<String>) -> (u64, u64) {
        let (mut rolled, mut failed) = (0, 0);
        let mut after: Option<UserId> = None;
        loop {
            match self.roll_batch(after.as_ref()).await {
                Ok(batch) => {
                    rolled += batch.rolled;
                    after = batch.last;
                    if after.is_none() {
                        return (rolled, failed);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, after = after.as_ref().map(UserId::as_str), "a batch of rows was not rolled");
                    *last_error = Some(error.to_string());
                    failed += 1;
                    // The end of the batch is unknown, so the remaining rows are left to the next run too.
                    return (rolled, failed);
                }
            }
        }
    }

    async fn roll_batch(&self, after: Option<&UserId>) -> Result<RolledBatch, PostgresError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_roll_batch(after).await {
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, "rolling a batch of rows failed; trying again");
                    sleep(pause).await;
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        self.try_roll_batch(after).await
    }

    async fn try_roll_batch(&self, after: Option<&UserId>) -> Result<RolledBatch, PostgresError> {
        let now = self.gate.now();
        let calendar = self.gate.calendar();
        self.gate.postgres().roll_due(calendar, now, after, BATCH_ROWS).await
    }
}

impl Trigger {
    /// The word in the table `reset_runs`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Schedule => "schedule",
            Self::CommandLine => "command line",
        }
    }
}
