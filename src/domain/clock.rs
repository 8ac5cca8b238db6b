//! The only reader of the machine's clock.
//!
//! What the gate decides by is Redis `TIME` (decision 0003). This clock tells which bounds to
//! send along, what to show people and when a job is due. Tests set it by hand.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, Utc};

/// A source of the present.
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

    /// A clock that stands still until it is [set](Self::set). Clones show the same time.
    #[must_use]
    pub fn manual(now: DateTime<Utc>) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now.timestamp_millis()))))
    }

    /// The present, to the millisecond for a manual clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::Machine => Utc::now(),
            Source::Manual(ms) => instant(ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock.
    ///
    /// # Panics
    /// On the machine's clock, which nobody sets.
    pub fn set(&self, now: DateTime<Utc>) {
        match &self.0 {
            Source::Machine => panic!("the machine's clock cannot be set"),
            Source::Manual(ms) => ms.store(now.timestamp_millis(), Ordering::SeqCst),
        }
    }
}

/// The instant of a Unix time in milliseconds; the epoch for one that no calendar has.
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
