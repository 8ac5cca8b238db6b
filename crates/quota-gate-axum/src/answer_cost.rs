//! What an answer really cost, noted while it is generated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quota_gate::{
    domain::{ap::Ap, model_name::ModelName, usage::Tokens},
    gate::Commit,
};

/// What an answer really cost. An extension of the request, in which the handler notes it; the last value counts.
#[derive(Debug, Clone, Default)]
pub struct AnswerCost(Arc<Mutex<Noted>>);

#[derive(Debug, Clone, Default)]
struct Noted {
    commit: Commit,
    /// What was delivered so far has no value.
    is_preamble: bool,
    /// The body ended, the answer did not.
    broke_off: bool,
}

impl AnswerCost {
    /// Notes the cost in AP, and the tokens.
    pub fn set(&self, ap: Ap, tokens: Tokens) {
        let mut noted = self.noted();
        (noted.commit.ap, noted.commit.tokens) = (Some(ap), tokens);
    }

    /// Notes the model that wrote the answer.
    pub fn set_model(&self, model: ModelName) {
        self.noted().commit.model = Some(model);
    }

    /// Notes the tokens. The cost stays what was held.
    pub fn set_tokens(&self, tokens: Tokens) {
        self.noted().commit.tokens = tokens;
    }

    /// Notes that what was delivered so far has no value: if no more comes, nothing is charged.
    pub fn preamble(&self) {
        self.noted().is_preamble = true;
    }

    /// Notes that the answer itself begins. Without [`preamble`](Self::preamble), it begins with the first byte.
    pub fn content_begins(&self) {
        self.noted().is_preamble = false;
    }

    /// Notes that the answer broke off, although the body may end well.
    pub fn broke_off(&self) {
        self.noted().broke_off = true;
    }

    pub(crate) fn commit(&self) -> Commit {
        self.noted().commit.clone()
    }

    /// Returns whether what was delivered so far has no value.
    #[must_use]
    pub fn is_preamble(&self) -> bool {
        self.noted().is_preamble
    }

    /// Returns whether the answer broke off.
    #[must_use]
    pub fn has_broken_off(&self) -> bool {
        self.noted().broke_off
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
