//! What clients asked and were answered: all that an auditor may believe.

use std::time::Duration;

use uuid::Uuid;

use crate::load::user;

/// One request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) user: usize,
    pub(crate) kind: Kind,
    /// What the request was to charge, hold or settle.
    pub(crate) ap: u32,
    /// Since the load began.
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
    pub(crate) gate: usize,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Consume,
    /// An attempt at a consume with an Idempotency-Key that was made again: the last attempt tells what came of it.
    Attempt,
    /// A consume with an Idempotency-Key whose answer, this event, was known already.
    Again(Uuid),
    Reserve,
    /// Of this hold.
    Extend(Uuid),
    Commit(Uuid),
    Release(Uuid),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200: this usage event has charged so much.
    Charged { event: Uuid, ap: u32, overage: u32, degraded: bool },
    /// 201: this hold.
    Held { hold: Uuid, degraded: bool },
    /// 200 of an extension.
    Extended,
    /// 200 of a release.
    Released,
    /// 202: it will be settled.
    Accepted,
    /// 429.
    Denied { remaining: u32 },
    /// 503, or no connection: nothing was done.
    Refused,
    /// The answer was lost: anything may have happened.
    Unknown,
    /// Any other status.
    Rejected(u16),
}

/// All of a run, in the order of its answers.
#[derive(Debug, Default)]
pub(crate) struct History(pub(crate) Vec<Event>);

impl Event {
    pub(crate) fn took(&self) -> Duration {
        self.answered.saturating_sub(self.sent)
    }
}

impl History {
    /// What one user asked.
    pub(crate) fn of(&self, who: &str) -> impl Iterator<Item = &Event> {
        self.0.iter().filter(move |event| user(event.user) == who)
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.iter().filter(|event| wanted(event)).count()
    }

    pub(crate) fn unknown(&self) -> usize {
        self.count(|event| event.outcome == Outcome::Unknown)
    }

    pub(crate) fn refused(&self) -> usize {
        self.count(|event| event.outcome == Outcome::Refused)
    }

    pub(crate) fn denied(&self) -> usize {
        self.count(|event| matches!(event.outcome, Outcome::Denied { .. }))
    }

    /// Messages that were charged or held while `when` holds.
    pub(crate) fn admitted(&self, when: impl Fn(&Event) -> bool) -> usize {
        let admitted = |event: &Event| matches!(event.outcome, Outcome::Charged { .. } | Outcome::Held { .. });
        self.count(|event| admitted(event) && when(event))
    }
}
