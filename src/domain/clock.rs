//! The machine's clock. Only this file reads it.
//!
//! Decisions use Redis `TIME` (decision 0003). This clock provides the calendar bounds sent to Redis, the times shown
//! to people and the schedule of jobs. Tests set it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, Utc};

/// A source of the current time.
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    Machine,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn machine() -> Self {
        Self(Source::Machine)
    }

    /// A clock that stands still until it is [set](Self::set). Clones share the time.
    #[must_use]
    pub fn manual(now: DateTime<Utc>) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now.timestamp_millis()))))
    }

    /// The current time, in whole milliseconds for a manual clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::Machine => Utc::now(),
            Source::Manual(ms) => instant(ms.load(Ordering::SeqCst)),
        }
    }

    /// Sets a manual clock.
    ///
    /// # Panics
    /// If this is the machine's clock.
    pub fn set(&self, now: DateTime<Utc>) {
        match &self.0 {
            Source::Machine => panic!("the machine's clock cannot be set"),
            Source::Manual(ms) => ms.store(now.timestamp_millis(), Ordering::SeqCst),
        }
    }
}

/// The instant of a Unix time in milliseconds; the epoch if it is out of range.
#[must_use]
pub fn instant(unix_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(unix_ms).unwrap_or_default()
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.0 {
            Source::Machine => "machine",
            Source::Manual(_) => "manual",
        };
        write!(f, "Clock({source}, {})", self.now())
    }
}
