//! The rollout switch: for which users the gate decides, and whose messages pass.
//!
//! Only new messages pass. Holds are settled whatever the switch says now, so changing it loses no charge.

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

/// The current rollout, and counts of messages that passed or were decided in shadow mode.
pub(in crate::gate) struct Switch {
    current: RwLock<Arc<Rollout>>,
    out: Count,
    shadow_allowed: Count,
    shadow_denied: Count,
    shadow_undecided: Count,
}

/// A count for the metrics and for [`RolloutCounts`].
struct Count {
    metric: Counter,
    seen: AtomicU64,
}

/// Messages that a gate passed, or decided in shadow mode, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutCounts {
    /// Messages of users for whom the gate does not decide.
    pub out: u64,
    /// Messages charged in shadow mode.
    pub shadow_allowed: u64,
    /// Messages that would have been denied.
    pub shadow_denied: u64,
    /// Messages without a decision.
    pub shadow_undecided: u64,
}

impl Gate {
    /// Returns for which users this gate decides.
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

    /// Sets for which users this gate decides.
    pub fn set_rollout(&self, rollout: Rollout) {
        *self.0.switch.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rollout);
    }

    /// Returns the counts of messages that passed or were decided in shadow mode.
    #[must_use]
    pub fn rollout_counts(&self) -> RolloutCounts {
        let Switch { out, shadow_allowed, shadow_denied, shadow_undecided, .. } = &self.0.switch;
        RolloutCounts {
            out: out.seen(),
            shadow_allowed: shadow_allowed.seen(),
            shadow_denied: shadow_denied.seen(),
            shadow_undecided: shadow_undecided.seen(),
        }
    }

    /// Counts a message for which the gate does not decide, and passes it.
    pub(in crate::gate) fn pass_out_of_rollout<A>(&self) -> Decision<A> {
        self.0.switch.out.one();
        Decision::Passed(Passed::Out)
    }

    /// In shadow mode, passes denied and undecided messages. An invalid request still fails.
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
