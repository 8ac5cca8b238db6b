//! The levels: follows changes of the levels in Postgres, and sends them to Redis.
//!
//! Every gate reads the version each second. A new version, or a partition that was opened since, makes the gate send
//! the quotas to Redis, and then use the levels. Any number of gates may do so: older quotas never replace newer ones.

use std::time::Duration;

use super::job::{Job, Next, Pace, StepError};
use crate::gate::{Gate, GateError};

/// Keeps a gate's levels up to date.
#[derive(Debug, Clone)]
pub struct LevelsReader {
    gate: Gate,
    /// The version and the generations to which it was sent.
    sent: Option<(u32, Vec<u32>)>,
}

impl Job for LevelsReader {
    fn name(&self) -> &'static str {
        "levels"
    }

    fn pace(&self) -> Pace {
        // How soon a change takes effect at every gate.
        let pause = Duration::from_secs(1);
        Pace { pause, retry_pause_max: pause, step_max: Duration::from_secs(10) }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        self.follow().await?;
        Ok(Next::AfterPause)
    }
}

impl LevelsReader {
    /// The reader of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone(), sent: None }
    }

    /// Reads the version once, and follows it.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable: the levels stay as they are.
    pub async fn follow(&mut self) -> Result<(), GateError> {
        let version = self.gate.postgres().level_version().await?;
        let generations = self.gate.partitions().all().map(|partition| self.gate.generation(partition)).collect();
        let newest = (version, generations);
        if self.sent.as_ref() != Some(&newest) && self.gate.sync_levels().await? {
            let levels = self.gate.levels();
            if self.sent.as_ref().is_some_and(|(before, _)| *before != version) {
                let offered: Vec<String> =
                    levels.iter().map(|level| format!("{} {}", level.name, level.quota)).collect();
                tracing::info!(version, levels = offered.join(", "), "the levels changed");
            }
            self.sent = Some(newest);
        }
        Ok(())
    }
}
