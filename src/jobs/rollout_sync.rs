//! The rollout keeper: this gate decides for whom the newest change says, whoever made it and at whichever gate.
//!
//! The configuration is read again every second. What it says counts when it says something else than before; an unreadable
//! one changes nothing. While Postgres is away a changed configuration holds at once, for the gates that have it.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{clock::Clock, rollout::Rollout},
    gate::Gate,
    store::postgres::{Postgres, PostgresError},
};

/// How soon a change holds at every gate.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for one look. A store that hangs does not end it by itself.
const STEP_MAX: Duration = Duration::from_secs(5);

/// Reads what the configuration says now; the error is for people.
pub type Configured = Arc<dyn Fn() -> Result<Rollout, String> + Send + Sync>;

/// Keeps a gate's rollout up to date.
#[derive(Clone)]
pub struct RolloutSync {
    /// Whose.
    pub gate: Gate,
    /// Has all changes.
    pub postgres: Postgres,
    /// What the operator's file says.
    pub configured: Configured,
    /// The present.
    pub clock: Clock,
}

/// What was seen last.
#[derive(Debug, Default)]
pub struct RolloutSeen {
    change: i64,
    configured: Option<Result<Rollout, String>>,
}

impl RolloutSync {
    /// Runs until cancelled.
    pub async fn run(self, mut seen: RolloutSeen, cancelled: CancellationToken) {
        loop {
            select! {
                () = sleep(PAUSE) => {}
                () = cancelled.cancelled() => return,
            }
            match timeout(STEP_MAX, self.step(&mut seen)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the rollout cannot be looked up; it stays as it is"),
                Err(_) => tracing::warn!("the rollout cannot be looked up; it stays as it is"),
            }
        }
    }

    /// Changes for whom this gate decides, at once, and the others within a second or two.
    ///
    /// # Errors
    /// If Postgres is away: nothing has changed.
    pub async fn change(&self, rollout: Rollout, by: &str, reason: &str) -> Result<(), PostgresError> {
        self.postgres.change_rollout(&rollout, (by, reason), self.clock.now()).await?;
        self.gate.set_rollout(rollout);
        Ok(())
    }

    /// Looks once.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn step(&self, seen: &mut RolloutSeen) -> Result<(), PostgresError> {
        let configured = (self.configured)();
        if seen.configured.as_ref() != Some(&configured) {
            match &configured {
                Ok(rollout) => {
                    if seen.configured.is_some() {
                        // Whoever turns the gate off because Postgres is the trouble means now.
                        self.gate.set_rollout(rollout.clone());
                        seen.change = 0;
                    }
                    self.postgres.configure_rollout(rollout, self.clock.now()).await?;
                }
                Err(error) => tracing::error!(error, "the configuration cannot be read; the rollout stays as it is"),
            }
            seen.configured = Some(configured);
        }
        let Some(newest) = self.postgres.rollout_changes(1).await?.pop() else { return Ok(()) };
        if newest.id != seen.change {
            let Rollout { mode, percentage, .. } = &newest.rollout;
            tracing::info!(%mode, percentage = percentage.get(), by = newest.by, at = %newest.at, reason = newest.reason, "the rollout holds");
            self.gate.set_rollout(newest.rollout);
            seen.change = newest.id;
        }
        Ok(())
    }
}

impl std::fmt::Debug for RolloutSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RolloutSync").field("gate", &self.gate).finish_non_exhaustive()
    }
}
