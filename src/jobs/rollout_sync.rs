//! The rollout sync: applies the most recent change of the rollout, made at any gate, to this gate.
//!
//! It reads the configuration every second. A changed configuration counts as a change; an unreadable one changes
//! nothing. While Postgres is unavailable, a changed configuration takes effect at the gates that have it.

use std::{sync::Arc, time::Duration};

use super::job::{Job, Next, Pace, StepError};
use crate::{domain::rollout::Rollout, gate::Gate, store::postgres::PostgresError};

/// Reads the rollout of the configuration as it is now. The error is for people.
pub type ReadRollout = Arc<dyn Fn() -> Result<Rollout, String> + Send + Sync>;

/// Keeps a gate's rollout up to date.
#[derive(Clone)]
pub struct RolloutSync {
    gate: Gate,
    configuration: ReadRollout,
    last_change: i64,
    last_configuration: Option<Result<Rollout, String>>,
}

impl Job for RolloutSync {
    fn name(&self) -> &'static str {
        "rollout_sync"
    }

    fn pace(&self) -> Pace {
        // How soon a change takes effect at every gate.
        let pause = Duration::from_secs(1);
        Pace { pause, retry_pause_max: pause, step_max: Duration::from_secs(5) }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        self.sync().await?;
        Ok(Next::AfterPause)
    }
}

impl RolloutSync {
    /// The rollout sync of this gate.
    #[must_use]
    pub fn new(gate: &Gate, configuration: ReadRollout) -> Self {
        Self { gate: gate.clone(), configuration, last_change: 0, last_configuration: None }
    }

    /// Reads the configuration and the most recent change once.
    ///
    /// # Errors
    /// If Postgres is unavailable: the rollout stays as it is.
    pub async fn sync(&mut self) -> Result<(), PostgresError> {
        let configuration = (self.configuration)();
        if self.last_configuration.as_ref() != Some(&configuration) {
            match &configuration {
                Ok(rollout) => {
                    if self.last_configuration.is_some() {
                        // An operator who turns the gate off because of Postgres needs it now.
                        self.gate.set_rollout(rollout.clone());
                        self.last_change = 0;
                    }
                    self.gate.postgres().configure_rollout(rollout, self.gate.now()).await?;
                }
                Err(error) => tracing::error!(error, "the configuration cannot be read; the rollout stays as it is"),
            }
            self.last_configuration = Some(configuration);
        }
        let Some(newest) = self.gate.postgres().rollout_changes(1).await?.pop() else { return Ok(()) };
        if newest.id != self.last_change {
            let Rollout { mode, percentage, .. } = &newest.rollout;
            tracing::info!(%mode, percentage = percentage.get(), by = newest.by, at = %newest.at, reason = newest.reason, "the rollout changed");
            self.gate.set_rollout(newest.rollout);
            self.last_change = newest.id;
        }
        Ok(())
    }
}

impl std::fmt::Debug for RolloutSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RolloutSync").field("gate", &self.gate).finish_non_exhaustive()
    }
}
