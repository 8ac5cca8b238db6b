//! The inbox_worker: applies what Postgres accepted while Redis was away, each item once.
//!
//! Settlers of several gates claim items, so that they do not do each other's work. A claim is a time limit, not a lock: what it
//! protects is a few columns of a row, and applying an item twice changes nothing.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::clock::Clock,
    gate::{Applied, Gate, GateError},
    store::postgres::{InboxItem, Postgres},
};

/// Items of one step.
const ITEMS_PER_STEP: u32 = 500;
/// Items that are applied at a time: as many as make a good batch for Redis.
const ITEMS_AT_ONCE: usize = 64;
/// Pause after a step that found nothing, or failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for one step. A Postgres that hangs does not end it by itself, and a step may be repeated in any case.
const STEP_MAX: Duration = Duration::from_secs(20);
/// How long a inbox_worker that died keeps others from its items.
const CLAIM: TimeDelta = TimeDelta::seconds(5);
/// How long settled items are kept for people to look at.
pub const KEPT: TimeDelta = TimeDelta::days(7);

/// Applies what the inbox holds.
#[derive(Debug, Clone)]
pub struct InboxWorker {
    /// Applies.
    pub gate: Gate,
    /// Has the inbox.
    pub postgres: Postgres,
    /// The present.
    pub clock: Clock,
}

impl InboxWorker {
    /// Runs until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        while !cancelled.is_cancelled() {
            match timeout(STEP_MAX, self.step()).await {
                Ok(Ok(0)) => {}
                Ok(Ok(settled)) => {
                    tracing::info!(settled, "settled what was accepted while Redis was away");
                    continue;
                }
                Ok(Err(error)) if error.is_transient() => tracing::debug!(%error, "the inbox waits"),
                Ok(Err(error)) => tracing::error!(%error, "an item of the inbox cannot be settled"),
                Err(_) => tracing::warn!("the inbox waits: Postgres does not answer"),
            }
            select! {
                () = sleep(PAUSE) => {}
                () = cancelled.cancelled() => {}
            }
        }
    }

    /// Applies some items; returns how many. One that cannot be applied now keeps no other waiting.
    ///
    /// # Errors
    /// If none could be applied.
    pub async fn step(&self) -> Result<usize, GateError> {
        let (claim, now) = (Uuid::new_v4(), self.clock.now());
        let items = self.postgres.claim_inbox(claim, now, now + CLAIM, ITEMS_PER_STEP).await?;
        let applying = stream::iter(items).map(|item| self.apply(item, claim)).buffer_unordered(ITEMS_AT_ONCE);
        let (settled, failed) = applying
            .fold((0, None), async |(settled, failed), outcome| match outcome {
                Ok(()) => (settled + 1, failed),
                Err(error) => (settled, failed.or(Some(error))),
            })
            .await;
        let Some(error) = failed else { return Ok(settled) };
        // Whoever comes next need not wait for the claim to end, and begins with what was not tried yet.
        let _ = self.postgres.give_up_claim(claim, self.clock.now()).await;
        if settled == 0 {
            return Err(error);
        }
        tracing::debug!(%error, settled, "some of the inbox waits");
        Ok(settled)
    }

    async fn apply(&self, item: InboxItem, claim: Uuid) -> Result<(), GateError> {
        let outcome = match self.gate.apply(&item).await? {
            Applied::Done(outcome) => outcome,
            Applied::Denied => {
                self.postgres.commit_denied(item.id, claim).await?;
                return Ok(());
            }
        };
        if self.postgres.settle_inbox(item.id, claim, &outcome, self.clock.now()).await? {
            metrics::counter!("quota_gate_inbox_settled_total", "kind" => item.kind.as_str()).increment(1);
            tracing::info!(hold = %item.id, user = %item.user, kind = item.kind.as_str(), outcome, "settled from the inbox");
        }
        Ok(())
    }
}
