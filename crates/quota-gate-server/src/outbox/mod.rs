//! The outbox: what a transaction has written down for another system is handed over until it is taken, each item at least once,
//! under an id of its own.
//!
//! So a slow or broken receiver never hurts a message, and nothing is forgotten. What is not taken is tried again, later and later;
//! any gate may go on with it.

pub mod compare;
pub mod dual_writes;
pub mod notifications;
pub mod old_credits;
pub mod webhook;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use tokio::{
    select,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use quota_gate::{domain::clock::Clock, store::postgres::PostgresError};

/// Pause after a step that found nothing, or failed.
const PAUSE: Duration = Duration::from_millis(500);
/// A table that has grown is not counted at every step.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// What a claim has beyond the time of its requests.
const CLAIM_SLACK: Duration = Duration::from_secs(3);
/// Between two tries of one item, at most.
const RETRY_PAUSE_MAX: TimeDelta = TimeDelta::minutes(10);

/// A table of items, and the system that they go to.
pub trait Outbox: Clone + Send + Sync + 'static {
    /// What is handed over.
    type Item: Send + Sync;
    /// What logs call the items.
    const ITEMS: &'static str;
    /// The counter of tries, by their outcome.
    const TRIES: &'static str;
    /// The gauge of items that wait.
    const WAITING: &'static str;

    /// An item's id, the same at every try, and how many tries it has had, this one included.
    fn id_and_attempts(item: &Self::Item) -> (Uuid, i32);

    /// Takes some that are due, the oldest first. Nobody else takes them before `until`.
    fn claim(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Self::Item>, PostgresError>> + Send;

    /// One try. What went wrong is for people.
    fn hand_over(&self, item: &Self::Item, now: DateTime<Utc>) -> impl Future<Output = Result<(), String>> + Send;

    /// It was taken.
    fn taken(&self, id: Uuid, now: DateTime<Utc>) -> impl Future<Output = Result<(), PostgresError>> + Send;

    /// It was not taken; it is tried again at `due_at`.
    fn refused(
        &self,
        id: Uuid,
        due_at: DateTime<Utc>,
        error: &str,
    ) -> impl Future<Output = Result<(), PostgresError>> + Send;

    /// How many wait. A place to forget what was taken long ago.
    fn waiting(&self, now: DateTime<Utc>) -> impl Future<Output = Result<u64, PostgresError>> + Send;
}

/// Hands over.
#[derive(Debug, Clone)]
pub struct Dispatcher<O> {
    /// What, from where, to whom.
    pub outbox: O,
    /// How many at a time.
    pub at_once: usize,
    /// Longest time of one request.
    pub timeout: Duration,
    /// The present.
    pub clock: Clock,
}

impl<O: Outbox> Dispatcher<O> {
    /// Runs until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        let mut counted: Option<Instant> = None;
        while !cancelled.is_cancelled() {
            if counted.is_none_or(|at| at.elapsed() > COUNT_EVERY) {
                counted = Some(Instant::now());
                self.count().await;
            }
            match timeout(self.claim(), self.step()).await {
                Ok(Ok(0)) => {}
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => tracing::debug!(%error, "{} wait to be handed over", O::ITEMS),
                Err(_) => tracing::warn!("{} wait to be handed over: the receiver is slow", O::ITEMS),
            }
            select! {
                () = sleep(PAUSE) => {}
                () = cancelled.cancelled() => {}
            }
        }
    }

    /// Tries to hand over some; returns how many were tried.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn step(&self) -> Result<usize, PostgresError> {
        let now = self.clock.now();
        let most = u32::try_from(self.at_once * 2).unwrap_or(u32::MAX);
        let claimed = self.outbox.claim(now, now + self.claim(), most).await?;
        let tried = claimed.len();
        stream::iter(claimed).for_each_concurrent(self.at_once, |item| self.hand_over(item)).await;
        Ok(tried)
    }

    /// Longest time for one step, of two requests one after the other; so long a gate that died keeps others from its items.
    fn claim(&self) -> Duration {
        self.timeout * 2 + CLAIM_SLACK
    }

    async fn count(&self) {
        match self.outbox.waiting(self.clock.now()).await {
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            Ok(waiting) => metrics::gauge!(O::WAITING).set(waiting as f64),
            Err(error) => tracing::debug!(%error, "{} cannot be counted", O::ITEMS),
        }
    }

    async fn hand_over(&self, item: O::Item) {
        let (id, attempts) = O::id_and_attempts(&item);
        let outcome = self.outbox.hand_over(&item, self.clock.now()).await;
        let word = if outcome.is_ok() { "taken" } else { "failed" };
        metrics::counter!(O::TRIES, "outcome" => word).increment(1);
        let noted = match outcome {
            Ok(()) => self.outbox.taken(id, self.clock.now()).await,
            Err(error) => {
                tracing::warn!(%id, attempts, error, "one of the {} was not taken", O::ITEMS);
                self.outbox.refused(id, self.clock.now() + pause_after(attempts), &error).await
            }
        };
        if let Err(error) = noted {
            // It is handed over again, under the same id.
            tracing::debug!(%error, %id, "what became of one of the {} could not be noted", O::ITEMS);
        }
    }
}

/// 2, 4, 8 … seconds.
fn pause_after(attempts: i32) -> TimeDelta {
    TimeDelta::seconds(1 << attempts.clamp(0, 10)).min(RETRY_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_at_ten_minutes() {
        assert_eq!([1, 2, 3].map(|attempts| pause_after(attempts).num_seconds()), [2, 4, 8]);
        assert_eq!(pause_after(10), RETRY_PAUSE_MAX);
        assert_eq!(pause_after(i32::MAX), RETRY_PAUSE_MAX);
    }
}
