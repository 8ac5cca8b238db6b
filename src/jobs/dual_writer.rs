//! The dual writer: hands each charge to the old credits system too, while both are in use.
//!
//! It follows the log, not the requests: a charge is on its way with its row, in the same transaction, so that a slow or broken
//! old system never hurts a message, and no charge is forgotten. Each is handed over at least once, under its own id.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use tokio::{
    select,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::old_credits::OldCredits;
use crate::{
    domain::clock::Clock,
    store::postgres::{DualWrite, Postgres, PostgresError},
};

/// Pause after a step that found nothing, or failed.
const PAUSE: Duration = Duration::from_millis(500);
/// A table that has grown is not counted at every step.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// What a claim has beyond the time of its requests.
const CLAIM_SLACK: Duration = Duration::from_secs(3);
/// Between two tries of one charge, at most.
const RETRY_PAUSE_MAX: TimeDelta = TimeDelta::minutes(5);

/// Hands charges over.
#[derive(Debug, Clone)]
pub struct DualWriter {
    /// Has the charges.
    pub postgres: Postgres,
    /// Gets them.
    pub old: OldCredits,
    /// How many at a time.
    pub at_once: usize,
    /// Longest time of one request.
    pub timeout: Duration,
    /// The present.
    pub clock: Clock,
}

impl DualWriter {
    /// Runs until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        let mut counted: Option<Instant> = None;
        while !cancelled.is_cancelled() {
            if counted.is_none_or(|at| at.elapsed() > COUNT_EVERY) {
                counted = Some(Instant::now());
                if let Err(error) = self.count().await {
                    tracing::debug!(%error, "the charges that wait cannot be counted");
                }
            }
            match timeout(self.claim(), self.step()).await {
                Ok(Ok(0)) => {}
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => tracing::debug!(%error, "charges wait to be handed over"),
                Err(_) => tracing::warn!("charges wait to be handed over: the old credits system is slow"),
            }
            select! {
                () = sleep(PAUSE) => {}
                () = cancelled.cancelled() => {}
            }
        }
    }

    /// Tries to hand over some charges; returns how many were tried.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn step(&self) -> Result<usize, PostgresError> {
        let now = self.clock.now();
        let charges_max = u32::try_from(self.at_once * 2).unwrap_or(u32::MAX);
        let charges = self.postgres.claim_dual_writes(now, now + self.claim(), charges_max).await?;
        let tried = charges.len();
        stream::iter(charges).for_each_concurrent(self.at_once, |charge| self.hand_over(charge)).await;
        Ok(tried)
    }

    /// Counts all that waits, for the metric.
    async fn count(&self) -> Result<(), PostgresError> {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("quota_gate_dual_writes_waiting").set(self.postgres.dual_writes_waiting().await? as f64);
        Ok(())
    }

    /// Longest time for one step, of two requests one after the other; so long a writer that died keeps others from its charges.
    fn claim(&self) -> Duration {
        self.timeout * 2 + CLAIM_SLACK
    }

    async fn hand_over(&self, charge: DualWrite) {
        let outcome = self.old.hand_over(&charge).await;
        let word = if outcome.is_ok() { "taken" } else { "failed" };
        metrics::counter!("quota_gate_dual_writes_total", "outcome" => word).increment(1);
        let noted = match outcome {
            Ok(()) => self.postgres.dual_write_done(charge.event).await,
            Err(error) => {
                tracing::warn!(event = %charge.event, attempts = charge.attempts, error, "the old credits system has not taken a charge");
                let pause = TimeDelta::seconds(1 << charge.attempts.clamp(0, 10)).min(RETRY_PAUSE_MAX);
                self.postgres.dual_write_failed(charge.event, self.clock.now() + pause, &error).await
            }
        };
        if let Err(error) = noted {
            // It is handed over again, under the same id.
            tracing::debug!(%error, event = %charge.event, "what became of a charge could not be noted");
        }
    }
}
