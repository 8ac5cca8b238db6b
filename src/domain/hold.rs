//! A hold: AP reserved while a message is generated.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    InvalidInput,
    ap::Ap,
    calendar::Period,
    meter::MeterCode,
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
    /// The meter whose AP are held.
    pub meter: MeterCode,
}

/// Duration of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u32);

impl Ttl {
    /// One minute: longer than most answers take, short enough to free the AP of a crashed service soon.
    pub const DEFAULT: Self = Self(60);
    /// Maximum duration in seconds of a hold of the chat. Longer generations extend their hold.
    pub const SECONDS_MAX: u32 = 900;
    /// Maximum that can be set for another meter. A commit is searched for in two days of the log around its hold, and
    /// kept for repeats until the hold would have ended.
    pub const METER_SECONDS_MAX: u32 = 24 * 60 * 60;

    /// Creates a duration in seconds.
    ///
    /// # Errors
    /// If `seconds` is not 1 to 900.
    pub fn from_seconds(seconds: i64) -> Result<Self, InvalidInput> {
        Self::up_to(Self::SECONDS_MAX, seconds)
    }

    /// Creates a duration in seconds, of at most `seconds_max`, or [`METER_SECONDS_MAX`](Self::METER_SECONDS_MAX).
    ///
    /// # Errors
    /// If `seconds` is less than 1, or more.
    pub fn up_to(seconds_max: u32, seconds: i64) -> Result<Self, InvalidInput> {
        let max = seconds_max.min(Self::METER_SECONDS_MAX);
        let rule = || format!("must be a whole number from 1 to {max}, not {seconds}");
        let valid = u32::try_from(seconds).ok().filter(|seconds| (1..=max).contains(seconds));
        valid.map(Self).ok_or_else(|| InvalidInput::new("ttlSeconds", rule()))
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
