//! The switch between the gate and its callers: for whom it decides, and whose messages pass.
//!
//! Only new messages are let through. What is held is settled whatever the switch says now, so that turning it loses no charge.

use std::sync::{Arc, PoisonError, RwLock};

use metrics::Counter;

use super::{Gate, GateError};
use crate::domain::{
    decision::{Decision, Passed},
    rollout::{Mode, Rollout},
};

/// The rollout as it is now, and what became of messages that were not simply decided.
pub(super) struct Switch {
    current: RwLock<Arc<Rollout>>,
    out: Counter,
    shadow_allowed: Counter,
    shadow_denied: Counter,
    shadow_undecided: Counter,
}

impl Gate {
    /// For whom this gate decides.
    #[must_use]
    pub fn rollout(&self) -> Arc<Rollout> {
        Arc::clone(&self.0.switch.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides for others from now on.
    pub fn set_rollout(&self, rollout: Rollout) {
        *self.0.switch.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rollout);
    }

    /// The answer to a message for which the gate does not decide.
    pub(super) fn let_out<A>(&self) -> Decision<A> {
        self.0.switch.out.increment(1);
        Decision::Passed(Passed::Out)
    }

    /// A decision as the mode has it.
    pub(super) fn under<A>(
        &self,
        mode: Mode,
        decision: Result<Decision<A>, GateError>,
    ) -> Result<Decision<A>, GateError> {
        if mode != Mode::Shadow {
            return decision;
        }
        let switch = &self.0.switch;
        match decision {
            Ok(Decision::Denied(denied)) => {
                switch.shadow_denied.increment(1);
                Ok(Decision::Passed(Passed::WouldBeDenied(denied)))
            }
            Err(error) if !error.is_callers_fault() => {
                switch.shadow_undecided.increment(1);
                tracing::warn!(%error, "a message passes undecided: the rollout is in shadow mode");
                Ok(Decision::Passed(Passed::Undecided))
            }
            decision => {
                switch.shadow_allowed.increment(1);
                decision
            }
        }
    }
}

impl Default for Switch {
    fn default() -> Self {
        let counter = |outcome| metrics::counter!("quota_gate_rollout_messages_total", "outcome" => outcome);
        Self {
            current: RwLock::default(),
            out: counter("out"),
            shadow_allowed: counter("shadow_allowed"),
            shadow_denied: counter("shadow_denied"),
            shadow_undecided: counter("shadow_undecided"),
        }
    }
}
