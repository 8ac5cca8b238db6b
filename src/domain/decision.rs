//! Answers of the gate.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    ap::Ap,
    calendar::Calendar,
    hold::Reservation,
    level::LevelCode,
    quota::Quota,
    user_limits::{Binding, Occupies},
};

/// How to answer new messages while Redis is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRedisFailure {
    /// Refuse: no user exceeds the quota.
    #[default]
    Deny,
    /// Decide by the numbers in Postgres, and charge later.
    Allow,
}

/// Whether a user may send a message, with the numbers that explain the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<A> {
    /// Yes: the cost was charged or held.
    Allowed(A),
    /// No: nothing was changed.
    Denied(Denied),
    /// The rollout passes the message: nothing was charged or held, nothing needs to be settled.
    Passed(Passed),
}

/// Why a message passes without a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// The rollout is off or does not cover the user.
    Out,
    /// Would have been denied, but the rollout is in shadow mode.
    WouldBeDenied(Denied),
    /// Could not be decided, but the rollout is in shadow mode.
    Undecided,
}

/// A message that was charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charged {
    /// Id of the usage event.
    pub event: Uuid,
    /// AP charged.
    pub ap: Ap,
    /// The user's quota after the charge.
    pub quota: Quota,
    /// Whether this is the stored answer to an earlier request with this Idempotency-Key.
    pub replayed: bool,
    /// Whether Redis was unavailable: allowed by the numbers in Postgres, charged later.
    pub degraded: bool,
}

/// AP held for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The hold: how much, for whom and until when.
    pub reservation: Reservation,
    /// The user's quota, including the hold.
    pub quota: Quota,
    /// Whether this is the stored answer to an earlier request with this Idempotency-Key.
    pub replayed: bool,
    /// Whether Redis was unavailable: allowed by the numbers in Postgres, nothing held.
    pub degraded: bool,
}

/// A message that a limit of the user does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Cost of the message.
    pub required: Ap,
    /// The user's quota, unchanged.
    pub quota: Quota,
    /// Whether it would have occupied a hold.
    pub occupies: Occupies,
}

/// A settlement: applied, or accepted for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled<T> {
    /// Applied.
    Now(T),
    /// Redis is unavailable: stored in Postgres, and applied once when Redis is back.
    Later,
}

impl<T> Settled<T> {
    /// The result, if the settlement was applied.
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
    /// AP charged.
    pub charged: Ap,
    /// AP that the quota no longer covered: recorded, never charged.
    pub overage: Ap,
    /// Whether the hold had expired: only what was still free could be charged.
    pub late: bool,
    /// Whether it had been committed before, with the same cost.
    pub replayed: bool,
    /// Current quota.
    pub quota: Quota,
}

/// A hold whose AP were given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Whether it had been released before.
    pub replayed: bool,
    /// Current quota.
    pub quota: Quota,
}

/// A level change, applied in Postgres and Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelChanged {
    /// Previous level.
    pub previous: LevelCode,
    /// Level pending for the next period, if any.
    pub pending: Option<LevelCode>,
    /// Counts the user's level changes.
    pub level_version: u32,
    /// Current quota.
    pub quota: Quota,
}

/// A change of a user by hand, or the effect that it would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserChanged {
    /// Quota before.
    pub before: Quota,
    /// Quota after.
    pub after: Quota,
    /// Level pending for the next period, if any.
    pub pending: Option<LevelCode>,
    /// Counts the user's changes.
    pub level_version: u32,
}

/// The effect that a level change would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPreview {
    /// Current quota.
    pub before: Quota,
    /// Level pending before the change, if any.
    pub pending_before: Option<LevelCode>,
    /// Quota after the change.
    pub after: Quota,
    /// Level pending after the change, if any.
    pub pending: Option<LevelCode>,
    /// Level version on which the preview is based.
    pub level_version: u32,
}

impl Passed {
    /// The user's quota, if known.
    #[must_use]
    pub const fn quota(&self) -> Option<&Quota> {
        match self {
            Self::WouldBeDenied(denied) => Some(&denied.quota),
            Self::Out | Self::Undecided => None,
        }
    }
}

impl Denied {
    /// The limits that the message does not fit.
    #[must_use]
    pub fn binding(&self, calendar: Calendar) -> Vec<Binding> {
        self.quota.binding(self.required, self.occupies, calendar.period_end(self.quota.period, self.quota.anchor_day))
    }

    /// When the message would be allowed if nothing else happens; none if never.
    #[must_use]
    pub fn retry_at(&self, calendar: Calendar) -> Option<DateTime<Utc>> {
        let period_end = calendar.period_end(self.quota.period, self.quota.anchor_day);
        self.quota.retry_at(self.required, self.occupies, period_end)
    }

    /// AP missing to cover the cost.
    #[must_use]
    pub fn shortfall(&self) -> Ap {
        self.required.saturating_sub(self.quota.available())
    }
}
