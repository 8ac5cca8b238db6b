//! The grant sync: numbers the grants that transfers made, and sends changed grants to Redis that Redis has not
//! received yet.
//!
//! The gate that gives or voids a grant sends the user's list to Redis immediately. If that gate dies before, or Redis
//! is unavailable, the grant sync of any gate sends it. Sending twice is harmless: a record applies a version once. One
//! failed user does not block the others.

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

/// Sends changed grants to Redis.
#[derive(Debug, Clone)]
pub struct GrantSync {
    gate: Gate,
    /// The last user of the step before, within a round.
    after: Option<UserId>,
    /// The same of the users whose grants are numbered.
    numbered_after: Option<UserId>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrantSyncStep {
    /// Users whose grants Redis has received.
    pub synced: u64,
    /// Users whose grants Redis has not received in time. The next round tries again.
    pub unsynced: u64,
    /// The user after whom the next step continues; none at the end of a round.
    pub last: Option<UserId>,
}

impl Job for GrantSync {
    fn name(&self) -> &'static str {
        "grant_sync"
    }

    fn pace(&self) -> Pace {
        // Redis hears of a grant within a second, also if the gate that gave it has died.
        let pause = Duration::from_millis(500);
        // More than all users of a step take.
        Pace { pause, retry_pause_max: Duration::from_secs(2), step_max: Duration::from_secs(20) }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        // A step that fails begins the next round.
        let (after, numbered_after) = (self.after.take(), self.numbered_after.take());
        let numbered_to = self.number_some(numbered_after.as_ref()).await?;
        let step = self.sync_some(after.as_ref()).await?;
        if step.synced > 0 {
            tracing::info!(users = step.synced, "sent changed grants to Redis");
        }
        if step.unsynced > 0 {
            tracing::warn!(users = step.unsynced, "Redis has not received changed grants yet; trying again");
        }
        (self.after, self.numbered_after) = (step.last, numbered_to);
        Ok(if self.after.is_some() || self.numbered_after.is_some() { Next::Immediately } else { Next::AfterPause })
    }
}

impl GrantSync {
    /// The grant sync of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), after: None, numbered_after: None }
    }

    /// Numbers the grants of some users after `after` that transfers made. Returns the user after whom the next step
    /// continues; none at the end of a round.
    ///
    /// # Errors
    /// If Postgres cannot list these users.
    pub async fn number_some(&self, after: Option<&UserId>) -> Result<Option<UserId>, GateError> {
        let users = self.gate.postgres().unnumbered_grants(after, USERS_PER_STEP).await?;
        for user in &users {
            if let Err(error) = self.gate.number_grants(user).await {
                tracing::warn!(%user, %error, "transferred grants have no number yet; trying again");
            }
        }
        Ok(users.last().filter(|_| users.len() >= USERS_PER_STEP as usize).cloned())
    }

    /// Sends the grants of some users after `after` to Redis, if they changed.
    ///
    /// # Errors
    /// If Postgres cannot list these users.
    pub async fn sync_some(&self, after: Option<&UserId>) -> Result<GrantSyncStep, GateError> {
        let users = self.gate.postgres().unsynced_grants(after, USERS_PER_STEP).await?;
        let full = users.len() >= USERS_PER_STEP as usize;
        let mut step = GrantSyncStep { last: users.last().filter(|_| full).cloned(), ..GrantSyncStep::default() };
        let send = |user: UserId| async move {
            match timeout(USER_MAX, self.gate.send_grants(&user)).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(%user, %error, "changed grants have not reached Redis yet");
                    false
                }
                Err(_) => false,
            }
        };
        let mut sending = stream::iter(users).map(send).buffer_unordered(CONCURRENCY);
        while let Some(is_sent) = sending.next().await {
            *(if is_sent { &mut step.synced } else { &mut step.unsynced }) += 1;
        }
        Ok(step)
    }
}
