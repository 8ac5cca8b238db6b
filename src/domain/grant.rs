//! Grants: AP beside the quota of the level. They were bought or given, are paid after the plan, and may expire.
//!
//! Postgres has the grants. Redis hears of them as a list with a version (see [`Grants`]), and takes what they pay in
//! the step that charges. A usage event names what each grant has paid.

use chrono::{DateTime, TimeDelta, Utc};

use super::ap::Ap;

/// Maximum number of live grants of a user. Each message of the user reads all of them.
pub const GRANTS_PER_USER_MAX: usize = 32;

/// How long a grant is still sent to Redis after its expiry. Redis decides by its own clock.
const EXPIRY_SLACK: TimeDelta = TimeDelta::minutes(2);

/// Number of a grant, unique for its user and increasing: milliseconds of its creation, or one more than the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantNumber(u64);

/// A grant that can pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Its number.
    pub number: GrantNumber,
    /// AP that it can still pay.
    pub left: Ap,
    /// When it expires; none for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Grants of lower priority pay first; of the same, those that expire first, then the older ones.
    pub priority: u8,
}

/// All live grants of a user at one version. A higher version replaces a lower one; the same version changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// The version: the number of the newest grant, or of a later change. 0 if the user has never had a grant.
    pub version: u64,
    /// The live grants.
    pub live: Vec<Grant>,
}

/// What one grant has paid of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantPart {
    /// The grant.
    pub number: GrantNumber,
    /// AP that it paid.
    pub ap: Ap,
}

impl Grants {
    /// Without the grants that expired more than two minutes before `now`. The clocks of gates and of Redis differ by
    /// less, so nothing is left out that Redis still counts.
    #[must_use]
    pub fn without_expired(mut self, now: DateTime<Utc>) -> Self {
        self.live.retain(|grant| grant.expires_at.is_none_or(|at| at > now - EXPIRY_SLACK));
        self
    }
}

impl GrantNumber {
    /// Creates a number below 2^48, as records have six bytes for it.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 || number >= 1 << 48 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}
