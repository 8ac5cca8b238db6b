//! Why the gate could not answer.

use std::time::Duration;

use crate::{domain::InvalidInput, store::redis::ReplyStatus};

/// Why the gate could not answer. A denial is not an error: see [`Decision`](crate::domain::decision::Decision).
#[derive(Debug, Clone, thiserror::Error)]
pub enum GateError {
    /// The request cannot be meant.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// The text is no reservation id that this gate has signed.
    #[error("no such reservation: the id was not issued by this gate")]
    UnknownReservation,
    /// The hold's settle window is over, or (for an extension) the hold itself is.
    #[error("the reservation has expired: {0}")]
    ReservationExpired(&'static str),
    /// The hold was settled the other way.
    #[error("the reservation is settled already: {0}")]
    AlreadySettled(&'static str),
    /// The user's level is not what the caller has seen.
    #[error("the user's level was changed by somebody else; look again")]
    LevelChanged,
    /// The user has too many live holds.
    #[error("the user has {0} live reservations, which is the most; commit or release one first")]
    TooManyHolds(usize),
    /// The same Idempotency-Key or reservation was used before with other contents.
    #[error("{0}")]
    Mismatch(&'static str),
    /// The gate cannot decide now. Nothing was charged; ask again after a moment.
    #[error("the quota cannot be checked now: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
        /// When asking again makes sense.
        retry_after: Duration,
    },
    /// Redis is away or refuses to work. Nothing was charged; ask again after a moment.
    #[error("the quota cannot be checked now: {reason}")]
    RedisAway {
        /// How that showed.
        reason: String,
    },
    /// The answer was lost: the operation may or may not have been carried out. Only a request with an
    /// Idempotency-Key, a commit or a release may be repeated without risk.
    #[error("the outcome is unknown: {reason}")]
    Indeterminate {
        /// How the answer was lost.
        reason: String,
    },
}

impl GateError {
    /// The request was not refused, it just did not get through: trying again, where that is safe, may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::RedisAway { .. } | Self::Indeterminate { .. } | Self::Unavailable { .. })
    }

    /// It is wrong in any mode of the rollout.
    pub(in crate::gate) const fn is_callers_fault(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Mismatch(_))
    }

    /// Postgres has not answered in time.
    pub(in crate::gate) fn slow() -> Self {
        Self::unavailable("Postgres does not answer")
    }

    /// It may be another moment later.
    pub(in crate::gate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: Duration::from_secs(1) }
    }

    /// Postgres has been away for so long that Redis keeps as many charges as it may.
    pub(in crate::gate) fn shed() -> Self {
        Self::Unavailable { reason: "too many charges wait for Postgres".into(), retry_after: Duration::from_secs(5) }
    }
}

/// The script gave an answer that this operation never has. It was carried out or not: nobody can say.
pub(in crate::gate) fn unexpected(operation: &str, status: ReplyStatus) -> GateError {
    GateError::Indeterminate { reason: format!("{operation} was answered {status:?}") }
}
