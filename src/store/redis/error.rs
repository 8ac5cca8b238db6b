//! What a failed call proves: that nothing happened, or nothing at all.

use std::time::Duration;

/// Why Redis gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// As many callers wait for this partition as may. Nothing happened.
    #[error("{0} requests wait for Redis already")]
    Busy(usize),
    /// The request waited too long to be sent at all. Nothing happened.
    #[error("the request waited {0:?} for its turn at Redis")]
    Waited(Duration),
    /// The partition is not open in the generation that the caller named. Nothing happened.
    #[error("the partition is not open in Redis")]
    Stale,
    /// The clocks of Redis and of this gate are too far apart to tell what month it is. Nothing happened.
    #[error("the clock of Redis is {difference_ms} ms from this machine's; set both by NTP")]
    Skew {
        /// Redis `TIME` minus this gate's clock.
        difference_ms: i64,
    },
    /// Redis cannot be reached, or does not serve: nothing was sent, or it proved that nothing happened.
    #[error("Redis is away: {0}")]
    Away(String),
    /// The user's row, without which Redis cannot be asked, did not come from Postgres. Nothing happened.
    #[error("the user cannot be loaded: {0}")]
    NotLoaded(String),
    /// Redis refused, in a way that proves that nothing happened.
    #[error("Redis did not carry out the call: {0}")]
    NotExecuted(String),
    /// The answer was lost: it may have happened.
    #[error("no answer from Redis: {0}")]
    Indeterminate(String),
    /// Redis is set up in a way that would lose charges or quotas.
    #[error("{0}")]
    Unfit(String),
}

impl RedisError {
    /// Nothing can have happened, whatever `error` is: the command was not sent, or only reads.
    pub(super) fn not_executed(error: impl std::fmt::Display) -> Self {
        Self::NotExecuted(error.to_string())
    }

    /// There is no connection.
    pub(super) fn away(error: impl std::fmt::Display) -> Self {
        Self::Away(error.to_string())
    }

    /// Redis is at fault, not this request: another one would fare no better.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Away(_) | Self::NotExecuted(_))
    }

    /// Classifies the error of a command that was sent. A timeout or a broken connection proves nothing.
    pub(super) fn of_sent(error: &redis::RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::away(error);
        }
        error.code().map_or(Self::Indeterminate as fn(String) -> Self, kind_of)(error.to_string())
    }

    /// Classifies what Redis said instead of carrying out a script.
    pub(super) fn of_refusal(words: &str) -> Self {
        kind_of(words.split(' ').next().unwrap_or_default())(words.to_owned())
    }
}

/// What the code of a refusal proves. Redis refuses a script before it runs, or at its first write, which is all or nothing.
fn kind_of(code: &str) -> fn(String) -> RedisError {
    match code {
        // It serves nobody, whatever the command.
        "BUSY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "READONLY" => RedisError::Away,
        "ASK" | "CROSSSLOT" | "MISCONF" | "MOVED" | "NOPERM" | "NOREPLICAS" | "NOSCRIPT" | "OOM" | "TRYAGAIN" => {
            RedisError::NotExecuted
        }
        _ => RedisError::Indeterminate,
    }
}
