//! Middleware: puts the gate before any axum service that generates messages.
//!
//! For each request it asks who sends what ([`Ask`]), reserves, lets the inner service answer, and settles when the answer's
//! **body** has ended, not when its head was sent:
//!
//! | what happened | settlement |
//! | --- | --- |
//! | 2xx, body complete | commit, with what [`AnswerCost`] says |
//! | error status, error, panic, dropped before its head, body broken before any content | release: nothing is charged |
//! | client gone, body broken, or [`AnswerCost::broke_off`], after content was delivered | by [`ClientGone`]: charge, release, or in proportion |
//! | a long answer | the hold is extended while it lives, up to [`QuotaLayer::lifetime_max`] |
//! | the rollout is not for this user | passes: nothing is held or charged |
//! | process killed | the hold expires |
//!
//! Settling is a task of its own: a client's disconnect does not cancel it, and [`Settlements::finished`] waits for all of them
//! at shutdown. While Redis is away Postgres accepts it.
//!
//! ```no_run
//! # use axum::{Router, response::{IntoResponse, Response}, routing::post};
//! # use quota_gate::{domain::{ap::Ap, user_id::{SessionId, UserId}}, gate::Gate};
//! # use quota_gate_axum::{AnswerCost, Ask, QuotaLayer, Refusal};
//! async fn chat(answer_cost: axum::Extension<AnswerCost>) -> &'static str {
//!     answer_cost.set(Ap::new(2), quota_gate::domain::usage::Tokens::ZERO);
//!     "what the model said"
//! }
//!
//! fn app(gate: Gate) -> Router {
//!     let ask = |parts: &axum::http::request::Parts| -> Result<Ask, Response> {
//!         let user = parts.headers.get("x-user").and_then(|user| UserId::parse(user.to_str().ok()?).ok());
//!         let user = user.ok_or_else(|| "who are you?".into_response())?;
//!         Ok(Ask { user, session: SessionId::parse("chat").unwrap(), ap: Ap::ONE })
//!     };
//!     let refuse = |refusal: Refusal| format!("not now: {refusal:?}").into_response();
//!     Router::new().route("/chat", post(chat)).layer(QuotaLayer::new(gate, ask, refuse))
//! }
//! ```

mod body;
mod charge_at_expiry;
mod hold_guard;
mod layer;
mod service;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::task::TaskTracker;

pub use quota_gate::domain::client_gone::ClientGone;

pub use self::{body::MeteredBody, layer::QuotaLayer, service::QuotaService};
use quota_gate::{
    domain::{
        ap::Ap,
        decision::Denied,
        model_name::ModelName,
        quota::Quota,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    gate::{Commit, GateError},
};

/// Who sends a message, and what it costs at most.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who.
    pub user: UserId,
    /// The conversation.
    pub session: SessionId,
    /// What is held, and charged unless [`AnswerCost`] says otherwise.
    pub ap: Ap,
}

/// Why a message was not let through.
#[derive(Debug)]
pub enum Refusal {
    /// The quota does not cover it.
    Denied(Denied),
    /// The gate cannot tell.
    Failed(GateError),
}

/// What a message did cost: an extension of the request, for the handler to say so. EventSummary more than once, the last one counts.
#[derive(Debug, Clone, Default)]
pub struct AnswerCost(Arc<Mutex<Account>>);

/// The user's quota with this request's hold in it: an extension of the request, for handlers that show it.
#[derive(Debug, Clone)]
pub struct Admitted(pub Quota);

#[derive(Debug, Clone, Default)]
struct Account {
    commit: Commit,
    /// Nothing of what was delivered is worth anything yet.
    is_preamble: bool,
    /// The body ended, the answer did not.
    broke_off: bool,
}

/// The settlements that are under way. A cheap clone.
#[derive(Debug, Clone, Default)]
pub struct Settlements(TaskTracker);

impl AnswerCost {
    /// The message did cost this, by this many tokens.
    pub fn set(&self, ap: Ap, tokens: Tokens) {
        let mut account = self.account();
        (account.commit.ap, account.commit.tokens) = (Some(ap), tokens);
    }

    /// This model wrote the answer.
    pub fn set_model(&self, model: ModelName) {
        self.account().commit.model = Some(model);
    }

    /// It did cost what was held, by this many tokens.
    pub fn set_tokens(&self, tokens: Tokens) {
        self.account().commit.tokens = tokens;
    }

    /// What was delivered so far is worth nothing: if no more comes, nothing is charged.
    pub fn preamble(&self) {
        self.account().is_preamble = true;
    }

    /// What is delivered is the answer, as it is by default.
    pub fn content_begins(&self) {
        self.account().is_preamble = false;
    }

    /// However well the body ends, the answer broke off, as if the body had.
    pub fn broke_off(&self) {
        self.account().broke_off = true;
    }

    pub(self) fn get(&self) -> Commit {
        self.account().commit.clone()
    }

    pub(self) fn is_preamble(&self) -> bool {
        self.account().is_preamble
    }

    pub(self) fn has_broken_off(&self) -> bool {
        self.account().broke_off
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settlements {
    /// Waits until all are made or accepted. To be awaited at shutdown, after the last request has ended.
    pub async fn finished(&self) {
        self.0.close();
        self.0.wait().await;
        self.0.reopen();
    }

    /// How many are under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
