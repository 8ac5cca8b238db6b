//! A hold: AP that is set aside while a message is generated.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    InvalidInput,
    ap::Ap,
    calendar::Period,
    user_id::{SessionId, UserId},
};

/// How long after its expiry a hold may still be committed.
///
/// Long enough for a gateway to restart and settle what it had begun, short enough that the
/// outcome of every settlement can be kept for as long.
pub const SETTLE_WINDOW: TimeDelta = TimeDelta::minutes(10);

/// Most live holds per user. A record is read whole at each message, so it has to stay small.
pub const HOLDS_PER_USER_MAX: usize = 64;

/// What a reservation id says: all that is needed to settle, also when Redis lost the hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The hold's id, and the id of the usage event that a commit makes.
    pub hold: Uuid,
    /// Whose AP is held.
    pub user: UserId,
    /// The conversation that the message belongs to.
    pub session: SessionId,
    /// How much is held.
    pub ap: Ap,
    /// The period in which it is held, and in which a commit is charged.
    pub period: Period,
    /// When the AP goes back by itself.
    pub expires_at: DateTime<Utc>,
    /// The partition's generation at the time: tells a lost hold from an expired one.
    pub generation: u32,
}

/// How long to hold AP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u32);

impl Ttl {
    /// A minute: longer than most answers take, short enough that a dead holder blocks nobody for long.
    pub const DEFAULT: Self = Self(60);
    /// Longer generations extend their hold while they live.
    pub const SECONDS_MAX: u32 = 900;

    /// A duration in seconds.
    ///
    /// # Errors
    /// Unless `1 <= seconds <= 900`.
    pub fn from_seconds(seconds: i64) -> Result<Self, InvalidInput> {
        u32::try_from(seconds).ok().filter(|s| (1..=Self::SECONDS_MAX).contains(s)).map(Self).ok_or_else(|| {
            InvalidInput::new(
                "ttlSeconds",
                format!("must be a whole number from 1 to {}, not {seconds}", Self::SECONDS_MAX),
            )
        })
    }

    /// The duration in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// The duration in milliseconds.
    #[must_use]
    pub const fn ms(self) -> u32 {
        self.0 * 1000
    }
}
