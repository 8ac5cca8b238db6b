//! Middleware: puts the gate before any axum service that generates messages.
//!
//! For each request it asks who sends what ([`Ask`]), reserves, lets the inner service answer, and settles when the answer's
//! **body** has ended, not when its head was sent:
//!
//! | what happened | settlement |
//! | --- | --- |
//! | 2xx, body complete | commit, with what [`Spent`] says |
//! | error status, error, panic, dropped before its head, body broken before any content | release: nothing is charged |
//! | client gone, or body broken, after content was delivered | by [`ClientGone`]: charge, release, or in proportion |
//! | a long answer | the hold is extended while it lives |
//! | process killed | the hold expires |
//!
//! Settling is a task of its own: a client's disconnect does not cancel it, and [`Settlements::finished`] waits for all of them
//! at shutdown. While Redis is away Postgres accepts it.
//!
//! ```no_run
//! # use axum::{Router, response::{IntoResponse, Response}, routing::post};
//! # use quota_gate::{domain::{ap::Ap, user_id::{SessionId, UserId}}, gate::Gate, middleware::{Ask, QuotaLayer, Refusal, Spent}};
//! async fn chat(spent: axum::Extension<Spent>) -> &'static str {
//!     spent.set(Ap::new(2), quota_gate::domain::usage::Tokens::ZERO);
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
mod hold;
mod layer;
mod service;

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::TaskTracker;

pub use self::{
    body::MeteredBody,
    layer::{ClientGone, QuotaLayer},
    service::QuotaService,
};
use crate::{
    domain::{
        ap::Ap,
        decision::Denied,
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
    /// What is held, and charged unless [`Spent`] says otherwise.
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

/// What a message did cost: an extension of the request, for the handler to say so. Said more than once, the last one counts.
#[derive(Debug, Clone, Default)]
pub struct Spent(Arc<Mutex<Commit>>);

/// The settlements that are under way. A cheap clone.
#[derive(Debug, Clone, Default)]
pub struct Settlements(TaskTracker);

impl Spent {
    /// The message did cost this, by this many tokens.
    pub fn set(&self, ap: Ap, tokens: Tokens) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Commit { ap: Some(ap), tokens };
    }

    /// It did cost what was held, by this many tokens.
    pub fn set_tokens(&self, tokens: Tokens) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tokens = tokens;
    }

    pub(self) fn get(&self) -> Commit {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
