//! The switch between the gate and its callers: for whom it decides, and whose messages pass.
//!
//! Only new messages are let through. What is held is settled whatever the switch says now, so that turning it loses no charge.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use metrics::Counter;

use crate::domain::{
    decision::{Decision, Passed},
    rollout::{Mode, Rollout},
};
use crate::gate::{Gate, GateError};
use crate::store::postgres::PostgresError;

/// The rollout as it is now, and what became of messages that were not simply decided.
pub(in crate::gate) struct Switch {
    current: RwLock<Arc<Rollout>>,
    out: Count,
    shadow_allowed: Count,
    shadow_denied: Count,
    shadow_undecided: Count,
}

/// For the metrics, and for whoever asks this gate.
struct Count {
    metric: Counter,
    seen: AtomicU64,
}

/// Messages that a gate let through, or decided in shadow mode, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutCounts {
    /// Of users for whom it does not decide.
    pub out: u64,
    /// Charged in shadow mode.
    pub shadow_allowed: u64,
    /// Would have been denied.
    pub shadow_denied: u64,
    /// There was no decision.
    pub shadow_undecided: u64,
}

impl Gate {
    /// For whom this gate decides.
    #[must_use]
    pub fn rollout(&self) -> Arc<Rollout> {
        Arc::clone(&self.0.switch.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the rollout of the installation: here immediately, at other gates within two seconds.
    ///
    /// # Errors
    /// If Postgres is unavailable: nothing has changed.
    pub async fn change_rollout(&self, rollout: Rollout, by: &str, reason: &str) -> Result<(), PostgresError> {
        self.0.postgres.change_rollout(&rollout, (by, reason), self.now()).await?;
        self.set_rollout(rollout);
        Ok(())
    }

    /// Decides for others from now on.
    pub fn set_rollout(&self, rollout: Rollout) {
        *self.0.switch.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rollout);
    }

    /// What became of messages that were not simply decided.
    #[must_use]
    pub fn rollout_tally(&self) -> RolloutCounts {
        let Switch { out, shadow_allowed, shadow_denied, shadow_undecided, .. } = &self.0.switch;
        RolloutCounts {
            out: out.seen(),
            shadow_allowed: shadow_allowed.seen(),
            shadow_denied: shadow_denied.seen(),
            shadow_undecided: shadow_undecided.seen(),
        }
    }

    /// The answer to a message for which the gate does not decide.
    pub(in crate::gate) fn pass_out_of_rollout<A>(&self) -> Decision<A> {
        self.0.switch.out.one();
        Decision::Passed(Passed::Out)
    }

    /// A decision as the mode has it.
    pub(in crate::gate) fn under<A>(
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
                switch.shadow_denied.one();
                Ok(Decision::Passed(Passed::WouldBeDenied(denied)))
            }
            Err(error) if !error.is_callers_fault() => {
                switch.shadow_undecided.one();
                tracing::warn!(%error, "a message passes undecided: the rollout is in shadow mode");
                Ok(Decision::Passed(Passed::Undecided))
            }
            Ok(allowed) => {
                switch.shadow_allowed.one();
                Ok(allowed)
            }
            Err(callers_fault) => Err(callers_fault),
        }
    }
}

impl Count {
    fn new(outcome: &'static str) -> Self {
        let metric = metrics::counter!("quota_gate_rollout_messages_total", "outcome" => outcome);
        Self { metric, seen: AtomicU64::new(0) }
    }

    fn one(&self) {
        self.metric.increment(1);
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self {
            current: RwLock::default(),
            out: Count::new("out"),
            shadow_allowed: Count::new("shadow_allowed"),
            shadow_denied: Count::new("shadow_denied"),
            shadow_undecided: Count::new("shadow_undecided"),
        }
    }
}
