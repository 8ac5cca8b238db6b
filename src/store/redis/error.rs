//! Errors of Redis calls, and whether a failed call may have been executed.

use std::time::Duration;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// The partition's queue is full. Nothing happened.
    #[error("{0} requests are already waiting for Redis")]
    Busy(usize),
    /// The request waited too long and was not sent. Nothing happened.
    #[error("the request waited {0:?} in the queue for Redis")]
    Waited(Duration),
    /// The partition is not open in the generation that the caller named. Nothing happened.
    #[error("the partition is not open in Redis")]
    Stale,
    /// The clocks of Redis and of this gate differ too much to determine the month. Nothing happened.
    #[error("the clock of Redis differs from this machine's by {difference_ms} ms; synchronize both with NTP")]
    Skew {
        /// Redis `TIME` minus this gate's clock.
        difference_ms: i64,
    },
    /// Redis is unreachable or cannot serve. Nothing was sent, or the refusal proves that nothing happened.
    #[error("Redis is unavailable: {0}")]
    Away(String),
    /// This process has no file descriptor for a connection. Nothing was sent.
    #[error("this process has no file descriptors left for a connection to Redis: raise its limit (LimitNOFILE)")]
    Descriptors,
    /// The user's row, which Redis needs, could not be loaded from Postgres. Nothing happened.
    #[error("the user could not be loaded: {0}")]
    NotLoaded(String),
    /// The user was forgotten, so no record is created. Nothing happened.
    #[error("this user was forgotten")]
    Forgotten,
    /// Redis' memory is full. Nothing happened.
    #[error("Redis' memory is full: {0}")]
    OutOfMemory(String),
    /// The call was not executed. Nothing happened.
    #[error("Redis did not execute the call: {0}")]
    NotExecuted(String),
    /// The answer was lost. The call may have been executed.
    #[error("no answer from Redis: {0}")]
    Indeterminate(String),
    /// Redis is configured in a way that would lose charges or quotas.
    #[error("{0}")]
    Unfit(String),
}

impl RedisError {
    /// For a command that was not sent or only reads, so nothing happened.
    pub(super) fn not_executed(error: impl std::fmt::Display) -> Self {
        Self::NotExecuted(error.to_string())
    }

    /// For a missing connection.
    pub(super) fn away(error: impl std::fmt::Display) -> Self {
        let error = error.to_string();
        // EMFILE and ENFILE. The pool and the client pass on only the text.
        if ["(os error 24)", "(os error 23)"].iter().any(|code| error.contains(code)) {
            return Self::Descriptors;
        }
        Self::Away(error)
    }

    /// Whether Redis is the cause: any other request would fail too.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Descriptors | Self::NotExecuted(_) | Self::OutOfMemory(_))
    }

    /// Classifies the error of a command that was sent. After a timeout or a broken connection, the outcome is unknown.
    pub(super) fn of_sent(error: &redis::RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::away(error);
        }
        error.code().map_or(Self::Indeterminate as fn(String) -> Self, kind_of)(error.to_string())
    }

    /// Classifies the error that Redis returned for a script call.
    pub(super) fn of_refusal(words: &str) -> Self {
        kind_of(words.split(' ').next().unwrap_or_default())(words.to_owned())
    }
}

/// What an error code proves. Redis refuses a script before it runs or at its first write, which writes all or nothing.
fn kind_of(code: &str) -> fn(String) -> RedisError {
    match code {
        // Redis cannot serve the gate, whatever the command.
        "BUSY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "READONLY" => RedisError::Away,
        "ASK" | "CROSSSLOT" | "MISCONF" | "MOVED" | "NOPERM" | "NOREPLICAS" | "NOSCRIPT" | "TRYAGAIN" => {
            RedisError::NotExecuted
        }
        "OOM" => RedisError::OutOfMemory,
        _ => RedisError::Indeterminate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_not_reported_as_an_outage_of_redis() {
        let lacking = std::io::Error::from_raw_os_error(24);
        let error = RedisError::away(format!("connection refused: {lacking}"));
        assert!(matches!(error, RedisError::Descriptors), "{error}");
        assert!(error.to_string().contains("file descriptors"));
        assert!(matches!(RedisError::away("no route"), RedisError::Away(_)));
    }
}
