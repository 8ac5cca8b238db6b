//! Pure values and rules of the quota: no I/O, no wire formats, nothing asynchronous.
//!
//! Every value is checked when it is made, so that the layers above never meet a user id with a
//! brace in it or a cost of zero. Words are those of ARCHITECTURE.md, one per concept.

pub mod ap;
pub mod author;
pub mod calendar;
pub mod client_gone;
pub mod clock;
pub mod daily_at;
pub mod decision;
pub mod hold;
pub mod idempotency;
pub mod journal;
pub mod level;
pub mod level_change;
pub mod model_costs;
pub mod model_name;
pub mod partition;
pub mod quota;
pub mod rollout;
pub mod scope;
pub mod subscription;
pub mod usage;
pub mod user_id;

/// Input that no value of this domain can be made of; the message names the input and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct InvalidInput {
    /// The field as callers name it, for example `userUuid`.
    pub field: &'static str,
    /// What the field has to look like.
    pub rule: String,
}

impl InvalidInput {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}
