//! Requests to the gate.

use crate::domain::{
    ap::Ap,
    author::Author,
    calendar::AnchorDay,
    hold::Ttl,
    idempotency::IdempotencyKey,
    level::LevelName,
    level_change::Effective,
    model_name::ModelName,
    own_quota::UserChange,
    transfer::Receipt,
    usage::Tokens,
    user_id::{SessionId, UserId},
};

/// A request to check and charge in one step.
#[derive(Debug, Clone)]
pub struct Consume {
    /// Sender of the message.
    pub user: UserId,
    /// Conversation of the message.
    pub session: SessionId,
    /// Cost of the message.
    pub ap: Ap,
    /// Tokens that the model counted; 0 if unknown.
    pub tokens: Tokens,
    /// Model that wrote the answer, for the usage log.
    pub model: Option<ModelName>,
    /// Key that makes the request safe to repeat.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// A request to hold AP before generating.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Sender of the message.
    pub user: UserId,
    /// Conversation of the message.
    pub session: SessionId,
    /// Maximum cost of the message.
    pub ap: Ap,
    /// Time after which the AP is given back automatically.
    pub ttl: Ttl,
    /// Key that makes the request safe to repeat.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// A request to charge what was generated.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Actual cost; if none, all that was held.
    pub ap: Option<Ap>,
    /// Tokens that the model counted; 0 if unknown.
    pub tokens: Tokens,
    /// Model that wrote the answer, for the usage log.
    pub model: Option<ModelName>,
}

/// A request to transfer AP of a user's grants to another user.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The user whose grants pay.
    pub sender: UserId,
    /// AP to transfer.
    pub ap: Ap,
    /// Who receives them, and why.
    pub receipt: Receipt,
    /// Key that makes the request safe to repeat.
    pub key: IdempotencyKey,
}

/// A request to give a user another membership level.
#[derive(Debug, Clone)]
pub struct ChangeLevel {
    /// User whose level changes.
    pub user: UserId,
    /// New level.
    pub level: LevelName,
    /// When the change takes effect.
    pub effective: Effective,
    /// New day of the month on which the user's periods begin; `None`: as before.
    pub anchor_day: Option<AnchorDay>,
    /// Level version since which the user's level must not have changed.
    pub if_version: Option<u32>,
    /// Author of the change.
    pub author: Author,
}

/// A request to give a user a quota of the user's own, to block or to unblock the user.
#[derive(Debug, Clone)]
pub struct ChangeUser {
    /// The user.
    pub user: UserId,
    /// What changes.
    pub change: UserChange,
    /// Level version since which the user must not have changed.
    pub if_version: Option<u32>,
    /// Author of the change.
    pub author: Author,
}
