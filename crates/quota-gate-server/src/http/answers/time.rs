//! Times as answers contain them (RFC 3339, UTC).

use std::fmt;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use serde::{Serialize, Serializer};

/// A time in seconds: `2026-12-01T00:00:00Z`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds(pub(crate) DateTime<Utc>);

/// A time in milliseconds: `2026-11-23T20:13:52.123Z`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Millis(pub(crate) DateTime<Utc>);

impl Seconds {
    /// The first whole second that is not before this time.
    pub(crate) fn after(at: DateTime<Utc>) -> Self {
        Self(at + TimeDelta::milliseconds(999))
    }
}

fn write_seconds(at: DateTime<Utc>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}T{:02}:{:02}:{:02}", at.date_naive(), at.hour(), at.minute(), at.second())
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_seconds(self.0, f)?;
        f.write_str("Z")
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_seconds(self.0, f)?;
        write!(f, ".{:03}Z", self.0.timestamp_subsec_millis())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;

    use super::*;

    #[test]
    fn times_are_formatted_as_chrono_does() {
        for text in ["1970-01-01T00:00:00Z", "2026-11-23T20:13:52.123999Z", "2026-02-03T04:05:06.007Z"] {
            let at: DateTime<Utc> = text.parse().unwrap();
            assert_eq!(Seconds(at).to_string(), at.to_rfc3339_opts(SecondsFormat::Secs, true));
            assert_eq!(Millis(at).to_string(), at.to_rfc3339_opts(SecondsFormat::Millis, true));
        }
    }
}
