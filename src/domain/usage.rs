//! Usage events: one for each charge, journalled in Redis and stored in Postgres.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    InvalidInput,
    ap::Ap,
    calendar::Period,
    grant::GrantPart,
    level::LevelCode,
    meter::MeterCode,
    model_name::ModelName,
    token_kinds::TokenKinds,
    transfer::Receipt,
    user_id::{SessionId, UserId},
    window::WindowCount,
};

/// One charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    /// Permanent id of the charge: counted once by this id.
    pub id: Uuid,
    /// User who was charged.
    pub user: UserId,
    /// The conversation that the message belongs to.
    pub session: SessionId,
    /// The user's level at the time.
    pub level: LevelCode,
    /// Period charged; for a late commit not always the period of `at`.
    pub period: Period,
    /// AP charged: what the level's quota paid, and what grants paid.
    pub ap: Ap,
    /// AP that the quota no longer covered: recorded, never charged.
    pub overage: Ap,
    /// Tokens that the model counted; 0 if unknown.
    pub tokens: Tokens,
    /// Model that wrote the answer, if the caller named it.
    pub model: Option<ModelName>,
    /// Cause of the charge.
    pub kind: UsageKind,
    /// Time of the charge, by Redis `TIME`.
    pub at: DateTime<Utc>,
    /// When the hold was made that was committed, if the user has windows or grants.
    pub begun_at: Option<DateTime<Utc>>,
    /// What the charge counted in the user's windows.
    pub windows: Vec<WindowCount>,
    /// What grants paid of it, or what was transferred of them. Most users have none.
    pub grants: Vec<GrantPart>,
    /// The meter that counted it.
    pub meter: MeterCode,
    /// Who received the parts, if this is a transfer. Then `ap` is 0, because nothing was used.
    pub receipt: Option<Box<Receipt>>,
}

/// Cause of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageKind {
    /// Check and charge in one step.
    Consume,
    /// A hold was committed before its expiry.
    Commit,
    /// A hold was committed after its expiry.
    LateCommit,
    /// AP of grants went to another user. It is no message.
    Transfer,
    /// A repair: a charge that was missing in Postgres. Never journalled.
    Adjustment,
}

/// Tokens of one message, as counted by the model, and their kinds if they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    total: u32,
    kinds: Option<TokenKinds>,
}

impl Tokens {
    /// Zero, or unknown.
    pub const ZERO: Self = Self { total: 0, kinds: None };

    /// Creates a token count.
    ///
    /// # Errors
    /// If `tokens` is not 0 to 2^31 - 1.
    pub fn new(tokens: i64) -> Result<Self, InvalidInput> {
        let total = i32::try_from(tokens).ok().and_then(|tokens| u32::try_from(tokens).ok()).ok_or_else(|| {
            InvalidInput::new("tokens", format!("must be a whole number from 0 to {}, not {tokens}", i32::MAX))
        })?;
        Ok(Self { total, kinds: None })
    }

    /// Creates the sum of these kinds.
    #[must_use]
    pub const fn of_kinds(kinds: TokenKinds) -> Self {
        // Cached tokens are a part of the input. The sum of valid kinds has the bound of a total.
        Self { total: kinds.input() + kinds.output(), kinds: Some(kinds) }
    }

    /// The same total, without its kinds.
    #[must_use]
    pub const fn without_kinds(self) -> Self {
        Self { kinds: None, ..self }
    }

    /// The kinds, if they are known.
    #[must_use]
    pub const fn kinds(self) -> Option<TokenKinds> {
        self.kinds
    }

    /// The count as a number, at most 2^31 - 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.total
    }
}

impl UsageEvent {
    /// AP that the level's quota paid: all that grants did not pay.
    #[must_use]
    pub fn plan_ap(&self) -> Ap {
        self.grants.iter().fold(self.ap, |rest, part| rest.saturating_sub(part.ap))
    }
}

impl From<Tokens> for i32 {
    /// The count as a number, for Postgres.
    fn from(tokens: Tokens) -> Self {
        tokens.total.cast_signed()
    }
}

impl UsageKind {
    /// The byte for this kind in a usage event.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Consume => 1,
            Self::Commit => 2,
            Self::LateCommit => 3,
            Self::Adjustment => 4,
            Self::Transfer => 5,
        }
    }

    /// The kind with this byte, if Redis journals it.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Consume),
            2 => Some(Self::Commit),
            3 => Some(Self::LateCommit),
            5 => Some(Self::Transfer),
            _ => None,
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Consume, Self::Commit, Self::LateCommit, Self::Adjustment, Self::Transfer];
        all.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The name in the usage log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Commit => "commit",
            Self::LateCommit => "late_commit",
            Self::Adjustment => "adjustment",
            Self::Transfer => "transfer",
        }
    }
}
