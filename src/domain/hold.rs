//! A hold: AP reserved while a message is generated.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    InvalidInput,
    ap::Ap,
    calendar::Period,
    user_id::{SessionId, UserId},
};

/// How long after its expiry a hold can still be committed.
///
/// Long enough for a gateway to restart and settle its holds, short enough to keep every outcome for that time.
pub const SETTLE_WINDOW: TimeDelta = TimeDelta::minutes(10);

/// Maximum live holds per user. Each message reads the whole record, so it must stay small.
pub const HOLDS_PER_USER_MAX: usize = 64;

/// Contents of a reservation id: everything needed to settle, even if Redis lost the hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Id of the hold, and of the usage event that a commit creates.
    pub hold: Uuid,
    /// The user.
    pub user: UserId,
    /// The conversation that the message belongs to.
    pub session: SessionId,
    /// AP held: of the level's quota, and of grants.
    pub ap: Ap,
    /// Period of the hold. A commit is charged to it.
    pub period: Period,
    /// When the hold expires.
    pub expires_at: DateTime<Utc>,
    /// Generation when the hold was made: distinguishes a lost hold from an expired one.
    pub generation: u32,
    /// AP of it that grants are to pay.
    pub granted: Ap,
    /// When the hold was made, if the user had windows or grants.
    pub made_at: Option<DateTime<Utc>>,
}

/// Duration of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u32);

impl Ttl {
    /// One minute: longer than most answers take, short enough to free the AP of a crashed service soon.
    pub const DEFAULT: Self = Self(60);
    /// Maximum duration in seconds. Longer generations extend their hold.
    pub const SECONDS_MAX: u32 = 900;

    /// Creates a duration in seconds.
    ///
    /// # Errors
    /// If `seconds` is not 1 to 900.
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
