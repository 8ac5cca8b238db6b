//! The outbox: items for other systems. The transaction that causes an item also stores it; any gate then delivers it.
//!
//! So a slow or broken receiver never delays a message, and no item is lost. An item that is not accepted is tried
//! again, with growing pauses. Each is delivered at least once, always with the same id.

pub mod compare;
pub mod dual_writes;
pub mod notifications;
pub mod old_credits;
pub mod webhook;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use quota_gate::{
    domain::clock::Clock,
    jobs::job::{Job, Next, Pace, StepError},
    store::postgres::PostgresError,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Time between two counts of the waiting items: the table may be large.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Duration of a claim in addition to its requests.
const CLAIM_SLACK: Duration = Duration::from_secs(3);
/// Longest pause between two tries of one item.
const RETRY_PAUSE_MAX: TimeDelta = TimeDelta::minutes(10);

/// A table of items, and the system that receives them.
pub trait Outbox: Clone + Send + Sync + 'static {
    /// The type of the items.
    type Item: Send + Sync;

    /// Name of the job.
    const JOB: &'static str;
    /// Name of the items in log lines.
    const ITEMS: &'static str;
    /// Name of the counter of tries, by outcome.
    const TRIES: &'static str;
    /// Name of the gauge of waiting items.
    const WAITING: &'static str;

    /// Returns an item's id, the same at every try, and the number of its tries, including this one.
    fn id_and_attempts(item: &Self::Item) -> (Uuid, i32);

    /// Claims some due items, the oldest first. No other gate claims them before `until`.
    fn claim(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Self::Item>, PostgresError>> + Send;

    /// Tries to deliver an item. The error is a human-readable reason.
    fn deliver(&self, item: &Self::Item, now: DateTime<Utc>) -> impl Future<Output = Result<(), String>> + Send;

    /// Records that the receiver accepted an item.
    fn accepted(&self, id: Uuid, now: DateTime<Utc>) -> impl Future<Output = Result<(), PostgresError>> + Send;

    /// Records that the receiver did not accept an item. It is tried again at `due_at`.
    fn refused(
        &self,
        id: Uuid,
        due_at: DateTime<Utc>,
        error: &str,
    ) -> impl Future<Output = Result<(), PostgresError>> + Send;

    /// Counts the waiting items, and may delete old ones.
    fn waiting(&self, now: DateTime<Utc>) -> impl Future<Output = Result<u64, PostgresError>> + Send;
}

/// Delivers the items of an outbox.
#[derive(Debug, Clone)]
pub struct Dispatcher<O> {
    outbox: O,
    requests_in_flight_max: usize,
    /// Time limit for one request.
    timeout: Duration,
    clock: Clock,
    counted_at: Option<Instant>,
}

impl<O: Outbox> Job for Dispatcher<O> {
    fn name(&self) -> &'static str {
        O::JOB
    }

    fn pace(&self) -> Pace {
        let pause = Duration::from_millis(500);
        Pace { pause, retry_pause_max: pause, step_max: self.claim_time() }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if self.counted_at.is_none_or(|at| at.elapsed() > COUNT_EVERY) {
            self.counted_at = Some(Instant::now());
            self.count().await;
        }
        Ok(if self.deliver_some().await? == 0 { Next::AfterPause } else { Next::Immediately })
    }
}

impl<O: Outbox> Dispatcher<O> {
    /// Creates a job that delivers the items of this outbox, each by one request of at most `timeout`.
    pub const fn new(outbox: O, requests_in_flight_max: usize, timeout: Duration, clock: Clock) -> Self {
        Self { outbox, requests_in_flight_max, timeout, clock, counted_at: None }
    }

    /// Tries to deliver some items and returns their number.
    async fn deliver_some(&self) -> Result<usize, PostgresError> {
        let now = self.clock.now();
        let limit = u32::try_from(self.requests_in_flight_max * 2).unwrap_or(u32::MAX);
        let claimed = self.outbox.claim(now, now + self.claim_time(), limit).await?;
        let tried = claimed.len();
        stream::iter(claimed).for_each_concurrent(self.requests_in_flight_max, |item| self.deliver(item)).await;
        Ok(tried)
    }

    /// Maximum duration of a step, which makes two requests after each other. The items of a gate that died stay
    /// claimed for this long.
    fn claim_time(&self) -> Duration {
        self.timeout * 2 + CLAIM_SLACK
    }

    async fn count(&self) {
        match self.outbox.waiting(self.clock.now()).await {
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            Ok(waiting) => metrics::gauge!(O::WAITING).set(waiting as f64),
            Err(error) => tracing::debug!(%error, "{} cannot be counted", O::ITEMS),
        }
    }

    async fn deliver(&self, item: O::Item) {
        let (id, attempts) = O::id_and_attempts(&item);
        let outcome = self.outbox.deliver(&item, self.clock.now()).await;
        let label = if outcome.is_ok() { "taken" } else { "failed" };
        metrics::counter!(O::TRIES, "outcome" => label).increment(1);
        let recorded = match outcome {
            Ok(()) => self.outbox.accepted(id, self.clock.now()).await,
            Err(error) => {
                tracing::warn!(%id, attempts, error, "one of the {} was not accepted", O::ITEMS);
                self.outbox.refused(id, self.clock.now() + pause_after(attempts), &error).await
            }
        };
        if let Err(error) = recorded {
            // It is delivered again, under the same id.
            tracing::debug!(%error, %id, "the result of delivering one of the {} could not be recorded", O::ITEMS);
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
