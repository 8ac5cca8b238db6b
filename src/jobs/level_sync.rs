//! The level sync: sends changed levels to Redis that Redis has not received yet.
//!
//! The gate that changes a level sends it to Redis immediately. If that gate dies before, or an operator changes many
//! levels in Postgres, the level sync of any gate sends them. Sending twice is harmless: a lower level version never
//! replaces a higher one. One failed user does not block the others.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::job::{Job, Next, Pace, StepError};
use crate::{
    domain::user_id::UserId,
    gate::{Gate, GateError},
};

/// Users of one step.
const USERS_PER_STEP: u32 = 100;
/// Users who are sent concurrently.
const CONCURRENCY: usize = 20;
/// Longest time for one user. The next round tries again.
const USER_MAX: Duration = Duration::from_secs(2);

/// Sends changed levels to Redis.
#[derive(Debug, Clone)]
pub struct LevelSync {
    gate: Gate,
    /// The last user of the step before, within a round.
    after: Option<UserId>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LevelSyncStep {
    /// Users whose level Redis has received.
    pub synced: u64,
    /// Users whose level Redis has not received in time. The next round tries again.
    pub unsynced: u64,
    /// The user after whom the next step continues; none at the end of a round.
    pub last: Option<UserId>,
}

impl Job for LevelSync {
    fn name(&self) -> &'static str {
        "level_sync"
    }

    fn pace(&self) -> Pace {
        let pause = Duration::from_secs(2);
        // More than all users of a step take.
        Pace { pause, retry_pause_max: pause, step_max: Duration::from_secs(20) }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        // A step that fails begins the next round.
        let after = self.after.take();
        let step = self.sync_some(after.as_ref()).await?;
        if step.synced > 0 {
            tracing::info!(users = step.synced, "sent changed levels to Redis");
        }
        if step.unsynced > 0 {
            tracing::warn!(users = step.unsynced, "Redis has not received changed levels yet; trying again");
        }
        self.after = step.last;
        Ok(if self.after.is_some() { Next::Immediately } else { Next::AfterPause })
    }
}

impl LevelSync {
    /// The level sync of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), after: None }
    }

    /// Sends the levels of some users after `after` to Redis, if they changed.
    ///
    /// # Errors
    /// If Postgres cannot list these users.
    pub async fn sync_some(&self, after: Option<&UserId>) -> Result<LevelSyncStep, GateError> {
        let users = self.gate.postgres().unsynced_users(after, USERS_PER_STEP).await?;
        let full = users.len() >= USERS_PER_STEP as usize;
        let mut step = LevelSyncStep { last: users.last().filter(|_| full).cloned(), ..LevelSyncStep::default() };
        let send = |user: UserId| async move { timeout(USER_MAX, self.gate.refresh_level(&user)).await };
        let mut sending = stream::iter(users).map(send).buffer_unordered(CONCURRENCY);
        while let Some(outcome) = sending.next().await {
            match outcome {
                Ok(Ok(())) => step.synced += 1,
                // The gate has logged the reason.
                Ok(Err(_)) | Err(_) => step.unsynced += 1,
            }
        }
        Ok(step)
    }
}
