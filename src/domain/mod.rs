//! Values and rules of the quota: no I/O, no wire formats, no async code.
//!
//! Every value is validated when it is created, so the layers above never receive a user id with a brace or a cost of
//! zero. ARCHITECTURE.md defines the terms, one per concept.

pub mod ap;
pub mod author;
mod by_model;
pub mod calendar;
pub mod client_gone;
pub mod clock;
pub mod daily_at;
pub mod decision;
pub mod grant;
pub mod hold;
pub mod idempotency;
pub mod journal;
pub mod level;
pub mod level_change;
pub mod level_difference;
pub mod meter;
pub mod model_costs;
pub mod model_name;
pub mod new_grant;
pub mod own_quota;
pub mod partition;
pub mod price_replay;
pub mod purchase;
pub mod quota;
pub mod remedy;
pub mod rollout;
pub mod scope;
pub mod subscription;
mod text;
pub mod token_kinds;
pub mod token_prices;
pub mod transfer;
pub mod usage;
pub mod user_id;
pub mod user_limits;
pub mod window;
pub mod without_redis;

/// Invalid input. The message names the field and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct InvalidInput {
    /// Field name that callers use, for example `userUuid`.
    pub field: &'static str,
    /// Rule that the field must follow.
    pub rule: String,
}

impl InvalidInput {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}
