//! The presence: reports every second that this gate runs, and to which Redis it is connected.
//!
//! While it does, no gate with another Redis opens a partition there (decision 0019). The report ends last, after the
//! last flush: until then the gate needs its Redis.

use super::job::{Job, Next, Pace, StepError};
use crate::gate::{Gate, GateError, HEARTBEAT_PAUSE};

/// Reports this gate to the others.
#[derive(Debug, Clone)]
pub struct Presence {
    gate: Gate,
}

impl Job for Presence {
    fn name(&self) -> &'static str {
        "presence"
    }

    fn pace(&self) -> Pace {
        Pace { pause: HEARTBEAT_PAUSE, retry_pause_max: HEARTBEAT_PAUSE, step_max: HEARTBEAT_PAUSE * 5 }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        self.report().await?;
        Ok(Next::AfterPause)
    }

    async fn finish(&mut self) {
        if let Err(error) = self.gate.forget_heartbeat().await {
            tracing::debug!(%error, "the row of this gate stays; others ignore it after a few seconds");
        }
    }
}

impl Presence {
    /// The presence of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        metrics::gauge!("quota_gate_redis_conflict").set(0);
        Self { gate: gate.clone() }
    }

    /// Reports once.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn report(&self) -> Result<(), GateError> {
        self.gate.send_heartbeat().await
    }
}
