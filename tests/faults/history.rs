//! Requests and answers as clients saw them: the only record of the load that the auditor trusts.

use std::time::Duration;

use uuid::Uuid;

use crate::load::user;

/// One request and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) user: usize,
    pub(crate) kind: Kind,
    /// AP to charge, hold or settle.
    pub(crate) ap: u32,
    /// Time since the load began.
    pub(crate) sent: Duration,
    /// Time since the load began.
    pub(crate) answered: Duration,
    pub(crate) gate: usize,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Consume,
    /// An attempt of a consume with an Idempotency-Key that was repeated. The last attempt has the outcome.
    Attempt,
    /// A repeated consume with an Idempotency-Key whose answer, this event, was already known.
    Again(Uuid),
    Reserve,
    /// An extension of this hold.
    Extend(Uuid),
    Commit(Uuid),
    Release(Uuid),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200: this usage event was charged.
    Charged { event: Uuid, ap: u32, overage: u32, degraded: bool },
    /// 201: this hold was made.
    Held { hold: Uuid, degraded: bool },
    /// 200 of an extension.
    Extended,
    /// 200 of a release.
    Released,
    /// 202: the hold will be settled.
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

/// All events of a run, in the order of the answers.
#[derive(Debug, Default)]
pub(crate) struct History(pub(crate) Vec<Event>);

impl Event {
    pub(crate) fn took(&self) -> Duration {
        self.answered.saturating_sub(self.sent)
    }
}

impl History {
    /// Returns the events of one user.
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

    /// Counts the charged or held messages for which `when` is true.
    pub(crate) fn admitted(&self, when: impl Fn(&Event) -> bool) -> usize {
        let admitted = |event: &Event| matches!(event.outcome, Outcome::Charged { .. } | Outcome::Held { .. });
        self.count(|event| admitted(event) && when(event))
    }
}
