//! What callers ask of the gate.

use crate::domain::{
    ap::Ap,
    author::Author,
    hold::Ttl,
    idempotency::IdempotencyKey,
    level::LevelName,
    level_change::Effective,
    model_name::ModelName,
    usage::Tokens,
    user_id::{SessionId, UserId},
};

/// Check and charge in one step.
#[derive(Debug, Clone)]
pub struct Consume {
    /// Who sends the message.
    pub user: UserId,
    /// The conversation it belongs to.
    pub session: SessionId,
    /// What it costs.
    pub ap: Ap,
    /// Tokens that the model counted, 0 when unknown.
    pub tokens: Tokens,
    /// The model that wrote the answer, for whoever reads the usage log.
    pub model: Option<ModelName>,
    /// Makes the request repeatable.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// Set AP aside before generating.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Who sends the message.
    pub user: UserId,
    /// The conversation it belongs to.
    pub session: SessionId,
    /// What it will cost at most.
    pub ap: Ap,
    /// When the AP goes back by itself.
    pub ttl: Ttl,
    /// Makes the request repeatable.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// Charge what was generated.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// What it did cost; all that was held, when not given.
    pub ap: Option<Ap>,
    /// Tokens that the model counted, 0 when unknown.
    pub tokens: Tokens,
    /// The model that wrote the answer, for whoever reads the usage log.
    pub model: Option<ModelName>,
}

/// Give a user another membership level.
#[derive(Debug, Clone)]
pub struct ChangeLevel {
    /// Whose level.
    pub user: UserId,
    /// The level to give.
    pub level: LevelName,
    /// When.
    pub effective: Effective,
    /// Only if the user's level has not been changed since it had this version.
    pub if_version: Option<u32>,
    /// Who asks for it.
    pub author: Author,
}
