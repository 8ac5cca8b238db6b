//! The level_sync: tells Redis of changes of level that it has not heard of.
//!
//! Whoever changes a level tells Redis at once. When that gate dies in between, or the levels of many users changed in
//! Postgres, the level_sync of any gate does it. Telling twice is harmless: a lower level version never wins. So it asks nobody how
//! long ago a level changed; and whoever cannot be told now keeps it from nobody else.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::user_id::UserId,
    gate::{Gate, GateError},
    store::postgres::Postgres,
};

/// Users of one step.
const USERS_PER_STEP: u32 = 100;
/// Users who are told at a time.
const TOLD_AT_ONCE: usize = 20;
/// Longest time for one user, who comes again in the next round.
const TELLING_MAX: Duration = Duration::from_secs(2);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest time for one step, more than all its users take. A Postgres that hangs does not end it by itself.
const STEP_MAX: Duration = Duration::from_secs(20);

/// Tells Redis of changes of level.
#[derive(Debug, Clone)]
pub struct LevelSync {
    /// Tells.
    pub gate: Gate,
    /// Knows whom.
    pub postgres: Postgres,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LevelSyncStep {
    /// Users of whom Redis has heard.
    pub told: u64,
    /// Users of whom it has not, in time; the next round tries again.
    pub unsynced: u64,
    /// Where to go on; none at the end of a round.
    pub last: Option<UserId>,
}

impl LevelSync {
    /// Runs until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        let mut after = None;
        while !cancelled.is_cancelled() {
            after = match timeout(STEP_MAX, self.step(after.as_ref())).await {
                Ok(Ok(step)) => {
                    if step.told > 0 {
                        tracing::info!(told = step.told, "told Redis of changed levels");
                    }
                    if step.unsynced > 0 {
                        tracing::warn!(
                            unsynced = step.unsynced,
                            "Redis has not heard of changed levels yet; trying again"
                        );
                    }
                    step.last
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "Redis could not be told of changed levels; trying again");
                    None
                }
                Err(_) => None,
            };
            if after.is_some() {
                continue;
            }
            select! {
                () = sleep(PAUSE) => {}
                () = cancelled.cancelled() => {}
            }
        }
    }

    /// Tells Redis of some users after `after` whose level changed.
    ///
    /// # Errors
    /// If Postgres does not say whose.
    pub async fn step(&self, after: Option<&UserId>) -> Result<LevelSyncStep, GateError> {
        let users = self.postgres.unsynced_users(after, USERS_PER_STEP).await?;
        let full = users.len() >= USERS_PER_STEP as usize;
        let mut announced = LevelSyncStep { last: users.last().filter(|_| full).cloned(), ..LevelSyncStep::default() };
        let tell = |user: UserId| async move { timeout(TELLING_MAX, self.gate.refresh_level(&user)).await };
        let mut telling = stream::iter(users).map(tell).buffer_unordered(TOLD_AT_ONCE);
        while let Some(outcome) = telling.next().await {
            match outcome {
                Ok(Ok(())) => announced.told += 1,
                // The gate has logged why.
                Ok(Err(_)) | Err(_) => announced.unsynced += 1,
            }
        }
        Ok(announced)
    }
}
