//! Creates the usage log's partitions for the next months. A reader of the whole log, such as a backup, blocks this;
//! the job tries again until the reader has ended, and no request waits for it.

use std::time::Duration;

use super::job::{Job, Next, Pace, StepError};
use crate::gate::Gate;

/// Months ahead for which partitions exist. So a partition is needed months after it could first be created.
pub const MONTHS_AHEAD: u32 = 3;
/// Pause if nothing is missing.
const PAUSE: Duration = Duration::from_hours(1);
/// Pause if a reader blocks a partition.
const BLOCKED_PAUSE: Duration = Duration::from_secs(30);
/// Four partitions, each tried for a few seconds.
const STEP_MAX: Duration = Duration::from_mins(2);

/// Keeps partitions ahead.
#[derive(Debug, Clone)]
pub struct PartitionMaker {
    gate: Gate,
}

impl PartitionMaker {
    /// The maker of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }
}

impl Job for PartitionMaker {
    fn name(&self) -> &'static str {
        "partition_maker"
    }

    fn pace(&self) -> Pace {
        Pace { pause: PAUSE, retry_pause_max: Duration::from_mins(5), step_max: STEP_MAX }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        let partitions = self.gate.postgres().ensure_log_partitions(self.gate.now(), MONTHS_AHEAD).await?;
        let Some(first) = partitions.blocked.first() else { return Ok(Next::AfterPause) };
        tracing::warn!(
            month = %first.format("%Y-%m"),
            "a reader of the usage log, such as a backup, blocks the creation of its partitions; trying again"
        );
        Ok(Next::After(BLOCKED_PAUSE))
    }
}
