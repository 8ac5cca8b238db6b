//! What the gate answers.

use uuid::Uuid;

use super::{ap::Ap, hold::Reservation, level::LevelCode, quota::Quota};

/// What to answer to new messages while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRedisFailure {
    /// Refuse: nobody gets more than their quota.
    #[default]
    Deny,
    /// Decide by what Postgres knows, and charge later.
    Allow,
}

/// May the user send this message? With the numbers that explain the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<A> {
    /// Yes: it was charged or held.
    Allowed(A),
    /// No: nothing was changed.
    Denied(Denied),
    /// The rollout lets it through: nothing was charged or held, and there is nothing to settle.
    Passed(Passed),
}

/// Why a message passes without a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// The rollout is off, or not for this user.
    Out,
    /// It would have been denied, but the rollout is in shadow mode.
    WouldBeDenied(Denied),
    /// There is no decision, but the rollout is in shadow mode.
    Undecided,
}

/// A message that was charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charged {
    /// The id of the usage event.
    pub event: Uuid,
    /// What was charged.
    pub ap: Ap,
    /// The user's quota after the charge.
    pub quota: Quota,
    /// This is the stored answer of an earlier request with the same Idempotency-Key.
    pub replayed: bool,
    /// Redis is away: it was let through by what Postgres knows, and is charged later.
    pub degraded: bool,
}

/// AP that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// What was set aside, for whom and until when.
    pub reservation: Reservation,
    /// The user's quota with the hold in it.
    pub quota: Quota,
    /// This is the stored answer of an earlier request with the same Idempotency-Key.
    pub replayed: bool,
    /// Redis is away: nothing is held, it was let through by what Postgres knows.
    pub degraded: bool,
}

/// A message that the quota does not cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// What the message would have cost.
    pub required: Ap,
    /// The user's quota, unchanged.
    pub quota: Quota,
}

/// A settlement: made, or accepted to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled<T> {
    /// It is made.
    Now(T),
    /// Redis is away: Postgres has it, and it is made once, when Redis is back.
    Later,
}

impl<T> Settled<T> {
    /// What was made, if it was.
    pub fn now(self) -> Option<T> {
        match self {
            Self::Now(made) => Some(made),
            Self::Later => None,
        }
    }
}

/// A hold that was settled by a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// What was charged.
    pub charged: Ap,
    /// What the quota could no longer cover: recorded, never charged.
    pub overage: Ap,
    /// The hold had expired; only what was still free could be charged.
    pub late: bool,
    /// It had been committed before, with the same cost.
    pub replayed: bool,
    /// The user's quota now.
    pub quota: Quota,
}

/// A hold that was settled by giving its AP back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// It had been released before.
    pub replayed: bool,
    /// The user's quota now.
    pub quota: Quota,
}

/// A change of level that is in Postgres and in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelChanged {
    /// The level before.
    pub previous: LevelCode,
    /// The level that takes over at the next period, where one does.
    pub pending: Option<LevelCode>,
    /// Counts the user's changes of level.
    pub level_version: u32,
    /// The user's quota now.
    pub quota: Quota,
}

/// What a change of level would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPreview {
    /// The user's quota now.
    pub before: Quota,
    /// The level that is to take over at the next period, as things stand.
    pub pending_before: Option<LevelCode>,
    /// The user's quota right after the change.
    pub after: Quota,
    /// The level that would take over at the next period.
    pub pending: Option<LevelCode>,
    /// The level version that was seen.
    pub level_version: u32,
}

impl Passed {
    /// The user's quota, where it is known.
    #[must_use]
    pub const fn quota(&self) -> Option<&Quota> {
        match self {
            Self::WouldBeDenied(denied) => Some(&denied.quota),
            Self::Out | Self::Undecided => None,
        }
    }
}

impl Denied {
    /// How much is missing.
    #[must_use]
    pub const fn shortfall(&self) -> Ap {
        self.required.saturating_sub(self.quota.remaining())
    }
}
