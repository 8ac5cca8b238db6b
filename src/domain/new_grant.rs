//! A grant as it is asked for: AP that a user gets beside the quota of the level.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::{InvalidInput, ap::Ap, meter::MeterCode, text::text_type, user_id::UserId};

/// Sources that only the gate itself writes.
const OWN_SOURCES: [&str; 2] = [UNKNOWN_SOURCE, TRANSFER_SOURCE];
/// Source of a pack that was bought.
pub const PACK_SOURCE: &str = "pack";
/// Source of a grant that Postgres has lost and knows only by its charges.
pub(crate) const UNKNOWN_SOURCE: &str = "unknown";
/// Source of a grant that another user transferred.
pub(crate) const TRANSFER_SOURCE: &str = "transfer";

text_type! {
    /// What a grant comes from, such as `pack` or `bonus`.
    pub struct GrantSource;
    field: "source",
    must_be: "1 to 64 of a-z, 0-9, _, - and ., and not \"unknown\" or \"transfer\"",
    is_valid: |source| (1..=64).contains(&source.len())
        && source.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b))
        && !OWN_SOURCES.contains(&source),
}

text_type! {
    /// The caller's id of a grant. It makes the grant once, however often it is asked for.
    pub struct ExternalId;
    field: "externalId",
    must_be: "1 to 255 printable ASCII characters without spaces",
    is_valid: |id| (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()),
}

/// Order in which grants pay: a lower number first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

/// A grant that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// The user who gets it.
    pub user: UserId,
    /// AP.
    pub ap: Ap,
    /// When what is left of it expires; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Order in which it pays.
    pub priority: Priority,
    /// What it comes from.
    pub source: GrantSource,
    /// The caller's id of it.
    pub external_id: ExternalId,
    /// The meter whose messages it pays.
    pub meter: MeterCode,
}

impl NewGrant {
    /// Most AP of a grant. All live grants of a user together fit into four bytes.
    pub const AP_MAX: u32 = 100_000_000;

    /// The AP of a grant.
    ///
    /// # Errors
    /// If `amount` is not 1 to 100,000,000.
    pub fn ap(amount: i64) -> Result<Ap, InvalidInput> {
        u32::try_from(amount).ok().filter(|ap| (1..=Self::AP_MAX).contains(ap)).map(Ap::new).ok_or_else(|| {
            InvalidInput::new("ap", format!("must be a whole number from 1 to {}, not {amount}", Self::AP_MAX))
        })
    }

    /// The expiry of a grant. Redis keeps milliseconds.
    ///
    /// # Errors
    /// If `text` is not a time of RFC 3339 between 1970 and 9999.
    pub fn expiry(text: &str) -> Result<DateTime<Utc>, InvalidInput> {
        let time = DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis());
        time.filter(|ms| (1..253_402_300_800_000).contains(ms))
            .and_then(DateTime::from_timestamp_millis)
            .ok_or_else(|| InvalidInput::new("expiresAt", "must be a time such as 2027-01-31T00:00:00Z"))
    }

    /// Whether it has expired before it was made.
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

impl Priority {
    /// The priority of grants that name none.
    pub const DEFAULT: Self = Self(100);

    /// Creates a priority.
    ///
    /// # Errors
    /// If `number` is not 0 to 255.
    pub fn new(number: i64) -> Result<Self, InvalidInput> {
        let rule = || InvalidInput::new("priority", format!("must be a whole number from 0 to 255, not {number}"));
        u8::try_from(number).map(Self).map_err(|_| rule())
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How long packs live that billing sells, in whole days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiresAfter(TimeDelta);

impl ExpiresAfter {
    /// Reads `365d`.
    ///
    /// # Errors
    /// If the text is not 1 to 3650 days.
    pub fn parse(text: &str) -> Result<Self, InvalidInput> {
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u16>().ok());
        days.filter(|days| (1..=3650).contains(days))
            .map(|days| Self(TimeDelta::days(days.into())))
            .ok_or_else(|| InvalidInput::new("expires_after", format!("must be 1d to 3650d, not {text:?}")))
    }

    /// When a pack that was bought at a time expires.
    #[must_use]
    pub fn after(self, at: DateTime<Utc>) -> DateTime<Utc> {
        at + self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_in_milliseconds() {
        assert_eq!(NewGrant::expiry("2027-01-31T01:00:00.123456+01:00").unwrap().timestamp_millis(), 1_801_353_600_123);
        for wrong in ["", "2027-01-31", "tomorrow", "1969-12-31T23:59:59Z", "2027-02-30T00:00:00Z"] {
            assert!(NewGrant::expiry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sources_of_the_gate_itself_are_refused() {
        assert!(GrantSource::parse("pack.100-ap_2").is_ok());
        for wrong in ["", "Pack", "a b", "unknown", "transfer", &"x".repeat(65)] {
            assert!(GrantSource::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn amounts_priorities_and_lives_have_bounds() {
        assert!(NewGrant::ap(1).is_ok() && NewGrant::ap(100_000_000).is_ok());
        assert!(NewGrant::ap(0).is_err() && NewGrant::ap(100_000_001).is_err() && NewGrant::ap(-1).is_err());
        assert!(Priority::new(0).is_ok() && Priority::new(255).is_ok());
        assert!(Priority::new(256).is_err() && Priority::new(-1).is_err());
        assert!(ExpiresAfter::parse("365d").is_ok());
        for wrong in ["", "0d", "3651d", "1w", "-1d", "365"] {
            assert!(ExpiresAfter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
