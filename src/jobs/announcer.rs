//! The announcer: tells Redis of changes of level that it has not heard of.
//!
//! Whoever changes a level tells Redis at once. When that gate dies in between, or the levels of many users changed in
//! Postgres, the announcer of any gate does it. Telling twice is harmless: a lower level version never wins.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::clock::Clock,
    gate::{Gate, GateError},
    store::postgres::Postgres,
};

/// Users of one step.
const USERS_PER_STEP: u32 = 500;
/// Pause after a step that found nobody.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest time for one step. A store that hangs does not end it by itself, and telling twice is harmless.
const STEP_MAX: Duration = Duration::from_secs(20);
/// Whoever changed the level gets this long to tell Redis by itself.
const GRACE: TimeDelta = TimeDelta::seconds(5);

/// Tells Redis of changes of level.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// Tells.
    pub gate: Gate,
    /// Knows whom.
    pub postgres: Postgres,
    /// The present.
    pub clock: Clock,
}

impl Announcer {
    /// Runs until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        while !cancelled.is_cancelled() {
            let pause = match timeout(STEP_MAX, self.step(GRACE)).await {
                Ok(Ok(0)) | Err(_) => PAUSE,
                Ok(Ok(told)) => {
                    tracing::info!(told, "told Redis of changed levels");
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "Redis could not be told of changed levels; trying again");
                    PAUSE
                }
            };
            select! {
                () = sleep(pause) => {}
                () = cancelled.cancelled() => {}
            }
        }
    }

    /// Tells Redis of some users whose level changed longer than `grace` ago; returns how many.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn step(&self, grace: TimeDelta) -> Result<usize, GateError> {
        let users = self.postgres.untold_users(self.clock.now() - grace, USERS_PER_STEP).await?;
        for user in &users {
            self.gate.refresh_membership(user).await?;
        }
        Ok(users.len())
    }
}
