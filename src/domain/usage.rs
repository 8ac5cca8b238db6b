//! Usage events: one for each charge, journalled in Redis and kept in Postgres.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    InvalidInput,
    ap::Ap,
    calendar::Period,
    level::LevelCode,
    model_name::ModelName,
    user_id::{SessionId, UserId},
};

/// One charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    /// Identifies the charge for ever: counted once by this id.
    pub id: Uuid,
    /// Who was charged.
    pub user: UserId,
    /// The conversation that the message belongs to.
    pub session: SessionId,
    /// The user's level at the time.
    pub level: LevelCode,
    /// The period that was charged; for a late commit not always that of `at`.
    pub period: Period,
    /// What was charged.
    pub ap: Ap,
    /// Work done that the quota could no longer cover: recorded, never charged.
    pub overage: Ap,
    /// Tokens that the model counted, 0 when unknown.
    pub tokens: Tokens,
    /// The model that wrote the answer, where the caller named it.
    pub model: Option<ModelName>,
    /// What led to the charge.
    pub kind: UsageKind,
    /// When it was charged, by Redis `TIME`.
    pub at: DateTime<Utc>,
}

/// What led to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageKind {
    /// Check and charge in one step.
    Consume,
    /// A hold was settled in time.
    Commit,
    /// A hold was settled after its expiry.
    LateCommit,
    /// A repair: a charge that Postgres had missed. Never journalled.
    Adjustment,
}

/// Tokens of one message, as the model counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens(u32);

impl Tokens {
    /// None, or not known.
    pub const ZERO: Self = Self(0);

    /// A token count.
    ///
    /// # Errors
    /// Unless `0 <= tokens <= 2^31 - 1`.
    pub fn new(tokens: i64) -> Result<Self, InvalidInput> {
        i32::try_from(tokens).ok().and_then(|tokens| u32::try_from(tokens).ok()).map(Self).ok_or_else(|| {
            InvalidInput::new("tokens", format!("must be a whole number from 0 to {}, not {tokens}", i32::MAX))
        })
    }

    /// The count as a number, at most 2^31 - 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl UsageKind {
    /// The byte that stands for it in a usage event.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Consume => 1,
            Self::Commit => 2,
            Self::LateCommit => 3,
            Self::Adjustment => 4,
        }
    }

    /// The kind with this byte, of those that Redis journals.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Consume),
            2 => Some(Self::Commit),
            3 => Some(Self::LateCommit),
            _ => None,
        }
    }

    /// The kind with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Consume, Self::Commit, Self::LateCommit, Self::Adjustment];
        all.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word for it in the usage log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Commit => "commit",
            Self::LateCommit => "late_commit",
            Self::Adjustment => "adjustment",
        }
    }
}
