//! Errors of the gate.

use std::time::Duration;

use crate::{
    domain::{InvalidInput, ap::Ap},
    store::redis::ReplyStatus,
};

/// Why the gate could not answer. A denial is not an error: see [`Decision`](crate::domain::decision::Decision).
#[derive(Debug, Clone, thiserror::Error)]
pub enum GateError {
    /// The request is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// The text is not a reservation id that this gate has signed.
    #[error("no such reservation: the id was not issued by this gate")]
    UnknownReservation,
    /// The reservation is of another meter.
    #[error("this reservation is of another meter: settle it at /api/{0}/quota/reservations")]
    OtherMeter(String),
    /// The hold's settle window is over, or (for an extension) the hold has expired.
    #[error("the reservation has expired: {0}")]
    ReservationExpired(&'static str),
    /// The hold was already settled the other way.
    #[error("the reservation is already settled: {0}")]
    AlreadySettled(&'static str),
    /// The user's level is not the one that the caller has read.
    #[error("the user's level has changed in the meantime; read it again")]
    LevelChanged,
    /// No grant has this id.
    #[error("no such grant")]
    UnknownGrant,
    /// The log has no such charge of the user.
    #[error("no such message of this user in the log; a message that was charged just now follows in a moment")]
    UnknownCharge,
    /// The user has the maximum number of live grants.
    #[error("the user has {0} live grants, the maximum; void one, or wait until one is used up or has expired")]
    TooManyGrants(usize),
    /// The user's grants do not cover the transfer.
    #[error(
        "the user can transfer {0} AP now: live granted AP that no reservation needs; AP of the level's quota cannot be \
         transferred"
    )]
    NotTransferable(Ap),
    /// The user was forgotten. Nothing was charged.
    #[error("this user was forgotten, at the user's wish: no message is decided for this id")]
    Forgotten,
    /// An administrator has blocked the user. Nothing was charged; holds can still be settled.
    #[error("this user is blocked: no new message is allowed")]
    Blocked,
    /// The user has the maximum number of live holds.
    #[error("the user has {0} live reservations, the maximum; commit or release one first")]
    TooManyHolds(usize),
    /// The same Idempotency-Key or reservation was used before with different contents.
    #[error("{0}")]
    Mismatch(&'static str),
    /// The gate cannot decide now. Nothing was charged; retry after a moment.
    #[error("the quota cannot be checked now: {reason}")]
    Unavailable {
        /// What is unavailable.
        reason: String,
        /// Time to wait before a retry.
        retry_after: Duration,
    },
    /// Redis is unavailable or refuses to work. Nothing was charged; retry after a moment.
    #[error("the quota cannot be checked now: {reason}")]
    RedisAway {
        /// How Redis failed.
        reason: String,
    },
    /// Other gates serve this installation from another Redis. Nothing was charged.
    #[error(
        "this gate's Redis {mine} is not the one from which other gates serve this installation ({theirs}): set the \
         same REDIS_URL on all gates, or stop the others first"
    )]
    OtherRedis {
        /// Host and port of this gate's Redis.
        mine: String,
        /// Host and port of the Redis of another gate.
        theirs: String,
    },
    /// The answer was lost: the operation may or may not have run. Only a request with an Idempotency-Key, a commit or
    /// a release can be repeated without risk.
    #[error("the outcome is unknown: {reason}")]
    Indeterminate {
        /// How the answer was lost.
        reason: String,
    },
}

impl GateError {
    /// The request was not refused, but could not be served. A retry, where it is safe, may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::RedisAway { .. } | Self::OtherRedis { .. } | Self::Indeterminate { .. } | Self::Unavailable { .. }
        )
    }

    /// The request is wrong in every mode of the rollout.
    pub(in crate::gate) const fn is_callers_fault(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Mismatch(_))
    }

    /// Postgres did not answer in time.
    pub(in crate::gate) fn slow() -> Self {
        Self::unavailable("Postgres does not answer")
    }

    /// A retry after a second may succeed.
    pub(in crate::gate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: Duration::from_secs(1) }
    }

    /// Postgres has been unavailable for so long that Redis stores as many charges as it may.
    pub(in crate::gate) fn shed() -> Self {
        Self::Unavailable { reason: "too many charges wait for Postgres".into(), retry_after: Duration::from_secs(5) }
    }
}

/// The script returned a status that this operation never has. It is unknown whether the operation ran.
pub(in crate::gate) fn unexpected(operation: &str, status: ReplyStatus) -> GateError {
    GateError::Indeterminate { reason: format!("unexpected answer to {operation}: {status:?}") }
}
