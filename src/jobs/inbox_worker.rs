//! The inbox worker: applies the settlements that Postgres accepted while Redis was unavailable, each once.
//!
//! Workers of several gates claim items to avoid duplicate work. A claim is a time limit, not a lock: it protects a few
//! columns of a row, and applying an item twice changes nothing.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use uuid::Uuid;

use super::job::{Job, Next, Pace, StepError};
use crate::{
    gate::{Applied, Gate, GateError},
    store::postgres::InboxItem,
};

/// Items of one step.
const ITEMS_PER_STEP: u32 = 500;
/// Items that are applied concurrently: as many as make a good batch for Redis.
const CONCURRENCY: usize = 64;
/// How long a worker that died keeps others from its items.
const CLAIM: TimeDelta = TimeDelta::seconds(5);
/// How long settled items are kept for people to look at.
pub const KEPT: TimeDelta = TimeDelta::days(7);

/// Applies the items of the inbox.
#[derive(Debug, Clone)]
pub struct InboxWorker {
    gate: Gate,
}

impl Job for InboxWorker {
    fn name(&self) -> &'static str {
        "inbox_worker"
    }

    fn pace(&self) -> Pace {
        let pause = Duration::from_secs(1);
        Pace { pause, retry_pause_max: pause, step_max: Duration::from_secs(20) }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        // The holds are in the Redis from which other gates serve.
        if self.gate.refusal().is_some() {
            return Ok(Next::AfterPause);
        }
        Ok(if self.apply_some().await? == 0 { Next::AfterPause } else { Next::Immediately })
    }
}

impl InboxWorker {
    /// The inbox worker of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }

    /// Applies some items and returns their number. An item that cannot be applied now does not block the others.
    ///
    /// # Errors
    /// If no item could be applied.
    pub async fn apply_some(&self) -> Result<usize, GateError> {
        let postgres = self.gate.postgres();
        let (claim, now) = (Uuid::new_v4(), self.gate.now());
        let items = postgres.claim_inbox(claim, now, now + CLAIM, ITEMS_PER_STEP).await?;
        let applying = stream::iter(items).map(|item| self.apply(item, claim)).buffer_unordered(CONCURRENCY);
        let (applied, failed) = applying
            .fold((0, None), async |(applied, failed), outcome| match outcome {
                Ok(()) => (applied + 1, failed),
                Err(error) => (applied, failed.or(Some(error))),
            })
            .await;
        let Some(error) = failed else { return Ok(applied) };
        // The next worker need not wait for the claim to end, and begins with the items that were not tried yet.
        let _ = postgres.give_up_claim(claim, self.gate.now()).await;
        if applied == 0 {
            return Err(error);
        }
        tracing::debug!(%error, applied, "some items of the inbox wait");
        Ok(applied)
    }

    async fn apply(&self, item: InboxItem, claim: Uuid) -> Result<(), GateError> {
        let outcome = match self.gate.apply(&item).await? {
            Applied::Done(outcome) => outcome,
            Applied::Denied => {
                self.gate.postgres().commit_denied(item.id, claim).await?;
                return Ok(());
            }
        };
        if self.gate.postgres().settle_inbox(item.id, claim, &outcome, self.gate.now()).await? {
            metrics::counter!("quota_gate_inbox_settled_total", "kind" => item.kind.as_str()).increment(1);
            tracing::info!(hold = %item.id, user = %item.user, kind = item.kind.as_str(), outcome, "settled an item of the inbox");
        }
        Ok(())
    }
}
