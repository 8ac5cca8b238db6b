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

    /// Classifies the error of a command that was sent. A timeout or a broken connection proves nothing.
    pub(super) fn of_sent(error: &redis::RedisError) -> Self {
        let proof = error.is_connection_refusal() || error.code().is_some_and(proves_non_execution);
        let constructor = if proof { Self::NotExecuted } else { Self::Indeterminate };
        constructor(error.to_string())
    }

    /// Classifies what Redis said instead of carrying out a script.
    pub(super) fn of_refusal(words: &str) -> Self {
        let code = words.split(' ').next().unwrap_or_default();
        let constructor = if proves_non_execution(code) { Self::NotExecuted } else { Self::Indeterminate };
        constructor(words.to_owned())
    }
}

/// The codes with which Redis refuses a script before it runs, or at its first write: the first write is all or nothing.
fn proves_non_execution(code: &str) -> bool {
    const PROOFS: [&str; 15] = [
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    ];
    PROOFS.contains(&code)
}
