//! Metrics of decisions and charges: by operation, outcome, level and mode, with durations. Never by user.
//!
//! Looking up a counter by its labels costs as much as a tenth of a decision, so each is looked up once.

use std::sync::OnceLock;

use metrics::{Counter, Histogram};
use tokio::time::Instant;

use crate::domain::{
    ap::Ap,
    decision::Decision,
    level::{LevelCode, Levels},
    rollout::Mode,
};
use crate::gate::GateError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gate) enum Asked {
    Consume,
    Reserve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecisionOutcome {
    Allowed,
    /// Allowed from what Postgres knows.
    Degraded,
    Denied,
    /// No decision was possible.
    Unavailable,
    /// Invalid request.
    Refused,
}

const ASKED: [(Asked, &str); 2] = [(Asked::Consume, "consume"), (Asked::Reserve, "reserve")];
const OUTCOMES: [(DecisionOutcome, &str); 5] = [
    (DecisionOutcome::Allowed, "allowed"),
    (DecisionOutcome::Degraded, "degraded"),
    (DecisionOutcome::Denied, "denied"),
    (DecisionOutcome::Unavailable, "unavailable"),
    (DecisionOutcome::Refused, "refused"),
];
/// A level's code is one byte; 0 stands for none.
const LEVELS: usize = 256;
const MODES: [&str; 2] = ["enforce", "shadow"];

pub(in crate::gate) struct DecisionMetrics {
    decisions: Box<[OnceLock<Counter>]>,
    seconds: [Histogram; ASKED.len()],
    charged: Counter,
    overage: Counter,
    late: Counter,
    settled: [Counter; 2],
}

/// How a hold was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gate) enum Settlement {
    Committed { charged: Ap, overage: Ap, late: bool },
    Released,
}

impl DecisionMetrics {
    /// Counts a decision and its duration. `level_of` returns the level of an allowed request, and whether it was
    /// degraded.
    pub(in crate::gate) fn decided<A>(
        &self,
        (asked, mode, started): (Asked, Mode, Instant),
        decision: &Result<Decision<A>, GateError>,
        level_of: impl Fn(&A) -> (LevelCode, bool),
        levels: impl FnOnce() -> Levels,
    ) {
        self.seconds[asked as usize].record(started.elapsed());
        let (outcome, level) = match decision {
            Ok(Decision::Allowed(allowed)) => match level_of(allowed) {
                (level, false) => (DecisionOutcome::Allowed, Some(level)),
                (level, true) => (DecisionOutcome::Degraded, Some(level)),
            },
            Ok(Decision::Denied(denied)) => (DecisionOutcome::Denied, Some(denied.quota.level)),
            // `Switch` counts it.
            Ok(Decision::Passed(_)) => return,
            Err(error) if error.is_transient() => (DecisionOutcome::Unavailable, None),
            Err(_) => (DecisionOutcome::Refused, None),
        };
        let code = level.map_or(0, |level| usize::from(level.get()));
        let shadow = usize::from(mode == Mode::Shadow);
        let place = ((asked as usize * OUTCOMES.len() + outcome as usize) * LEVELS + code) * MODES.len() + shadow;
        let counter = self.decisions[place].get_or_init(|| {
            let levels = levels();
            let name =
                level.map_or("unknown", |code| levels.coded(code).map_or("unknown", |level| level.name.as_str()));
            metrics::counter!(
                "quota_gate_decisions_total",
                "operation" => ASKED[asked as usize].1,
                "outcome" => OUTCOMES[outcome as usize].1,
                "level" => name.to_owned(),
                "mode" => MODES[shadow],
            )
        });
        counter.increment(1);
    }

    pub(in crate::gate) fn charged(&self, ap: Ap) {
        self.charged.increment(ap.get().into());
    }

    pub(in crate::gate) fn settled(&self, settlement: Settlement) {
        match settlement {
            Settlement::Committed { charged, overage, late } => {
                self.settled[0].increment(1);
                self.charged(charged);
                self.overage.increment(overage.get().into());
                if late {
                    self.late.increment(charged.get().into());
                }
            }
            Settlement::Released => self.settled[1].increment(1),
        }
    }
}

impl Default for DecisionMetrics {
    fn default() -> Self {
        let places = ASKED.len() * OUTCOMES.len() * LEVELS * MODES.len();
        let settled = |by: &'static str| metrics::counter!("quota_gate_holds_settled_total", "by" => by);
        Self {
            decisions: (0..places).map(|_| OnceLock::new()).collect(),
            seconds: ASKED.map(|(_, asked)| metrics::histogram!("quota_gate_decision_seconds", "operation" => asked)),
            charged: metrics::counter!("quota_gate_charged_ap_total"),
            overage: metrics::counter!("quota_gate_overage_ap_total"),
            late: metrics::counter!("quota_gate_late_ap_total"),
            settled: [settled("commit"), settled("release")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_at_the_index_of_its_variant() {
        assert!(ASKED.iter().enumerate().all(|(place, (asked, _))| *asked as usize == place));
        assert!(OUTCOMES.iter().enumerate().all(|(place, (outcome, _))| *outcome as usize == place));
    }
}
