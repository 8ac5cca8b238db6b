//! The notifier: tells the product's own systems of thresholds, resets and levels, each at least once, under an id of its own.
//!
//! What a receiver does not take is told again, later and later, until it does; any gate may go on with it.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::webhook::Webhook;
use crate::{
    domain::clock::Clock,
    store::postgres::{Notification, Postgres, PostgresError},
};

/// Pause after a step that found nothing, or failed.
const PAUSE: Duration = Duration::from_millis(500);
/// What a claim has beyond the time of its requests.
const CLAIM_SLACK: Duration = Duration::from_secs(3);
/// Between two tries of one notification, at most.
const RETRY_PAUSE_MAX: TimeDelta = TimeDelta::minutes(10);
/// A threshold is told once per period, so what was told is remembered for longer than one.
const KEPT: TimeDelta = TimeDelta::days(62);
/// Steps between two looks at how many wait.
const TIDY_EVERY: u32 = 20;

/// Tells.
#[derive(Debug, Clone)]
pub struct Notifier {
    /// Has the notifications.
    pub postgres: Postgres,
    /// Gets them.
    pub webhook: Webhook,
    /// How many at a time.
    pub at_once: usize,
    /// Longest time of one request.
    pub timeout: Duration,
    /// The present.
    pub clock: Clock,
}

impl Notifier {
    /// Runs until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        let mut steps = 0_u32;
        while !cancelled.is_cancelled() {
            if steps.is_multiple_of(TIDY_EVERY)
                && let Err(error) = self.tidy().await
            {
                tracing::debug!(%error, "the notifications that wait cannot be counted");
            }
            steps = steps.wrapping_add(1);
            match timeout(self.claim(), self.step()).await {
                Ok(Ok(0)) => {}
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => tracing::debug!(%error, "notifications wait to be told"),
                Err(_) => tracing::warn!("notifications wait to be told: the receiver is slow"),
            }
            select! {
                () = sleep(PAUSE) => {}
                () = cancelled.cancelled() => {}
            }
        }
    }

    /// Tries to tell of some; returns how many were tried.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn step(&self) -> Result<usize, PostgresError> {
        let now = self.clock.now();
        let most = u32::try_from(self.at_once * 2).unwrap_or(u32::MAX);
        let claimed = self.postgres.claim_notifications(now, now + self.claim(), most).await?;
        let tried = claimed.len();
        stream::iter(claimed).for_each_concurrent(self.at_once, |notification| self.tell(notification)).await;
        Ok(tried)
    }

    async fn tidy(&self) -> Result<(), PostgresError> {
        let waiting = self.postgres.tidy_notifications(self.clock.now() - KEPT).await?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("quota_gate_notifications_waiting").set(waiting as f64);
        Ok(())
    }

    /// Longest time for one step, of two requests one after the other; so long a notifier that died keeps others from its notifications.
    fn claim(&self) -> Duration {
        self.timeout * 2 + CLAIM_SLACK
    }

    async fn tell(&self, notification: Notification) {
        let Notification { id, attempts, .. } = notification;
        let outcome = self.webhook.tell(&notification, self.clock.now()).await;
        let word = if outcome.is_ok() { "taken" } else { "failed" };
        metrics::counter!("quota_gate_notifications_total", "outcome" => word).increment(1);
        let noted = match outcome {
            Ok(()) => self.postgres.notification_sent(id, self.clock.now()).await,
            Err(error) => {
                tracing::warn!(%id, attempts, error, "the product's webhook has not taken a notification");
                let pause = TimeDelta::seconds(1 << attempts.clamp(0, 10)).min(RETRY_PAUSE_MAX);
                self.postgres.notification_failed(id, self.clock.now() + pause, &error).await
            }
        };
        if let Err(error) = noted {
            // It is told again, under the same id.
            tracing::debug!(%error, %id, "what became of a notification could not be noted");
        }
    }
}
