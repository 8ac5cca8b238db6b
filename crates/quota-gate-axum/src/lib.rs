//! Middleware: puts the quota gate before any axum service that generates messages.
//!
//! For each request it reads the sender and the cost ([`Ask`]), holds the cost, calls the inner service, and settles
//! when the **body** of the response has ended, not when its head was sent:
//!
//! | what happened | settlement |
//! | --- | --- |
//! | 2xx, body complete | commit, of what [`AnswerCost`] notes |
//! | error status, error, panic, request dropped before the head | release: nothing is charged |
//! | body broken before any content | release |
//! | client disconnected, body broken, or [`AnswerCost::broke_off`], after content | [`ClientGone`] decides |
//! | a long answer | the hold is extended while it lasts, up to [`QuotaLayer::lifetime_max`] |
//! | the rollout does not cover this user | the message passes: nothing is held or charged |
//! | process killed | the hold expires |
//!
//! Each settlement is a separate task: a disconnect does not cancel it, and [`Settlements::finished`] waits for all of
//! them at shutdown. While Redis is unavailable, Postgres accepts settlements.
//!
//! [`QuotaLayer`] is for services; [`Admitter::admit`] does the same for code that is not a service.
//!
//! ```
//! use axum::{
//!     Extension, Router,
//!     body::Body,
//!     http::{Request, request::Parts},
//!     response::{IntoResponse, Response},
//!     routing::post,
//! };
//! use quota_gate::{
//!     domain::{
//!         ap::Ap,
//!         usage::Tokens,
//!         user_id::{SessionId, UserId},
//!     },
//!     gate::Gate,
//! };
//! use quota_gate_axum::{AnswerCost, Ask, QuotaLayer, Refusal};
//! # use tower::ServiceExt;
//!
//! async fn chat(cost: Extension<AnswerCost>) -> &'static str {
//!     cost.set(Ap::new(2), Tokens::ZERO); // instead of the 5 AP that are held
//!     "the model's answer"
//! }
//!
//! fn app(gate: Gate) -> Router {
//!     let ask = |parts: &Parts| -> Result<Ask, Response> {
//!         let user = parts.headers.get("x-user").and_then(|user| UserId::parse(user.to_str().ok()?).ok());
//!         let user = user.ok_or_else(|| "the header x-user is missing".into_response())?;
//!         Ok(Ask { user, session: SessionId::unnamed(), ap: Ap::new(5) })
//!     };
//!     let refuse = |refusal: Refusal| match refusal {
//!         Refusal::Denied(denied) => format!("{} AP are missing", denied.shortfall()).into_response(),
//!         Refusal::Failed(error) => format!("try again later: {error}").into_response(),
//!     };
//!     Router::new().route("/chat", post(chat)).layer(QuotaLayer::new(gate, ask, refuse))
//! }
//! # use quota_gate_dev::{PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions, ScratchDir};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = ScratchDir::new()?;
//! # let redis = RedisServer::start(&dir.path().join("redis"), RedisServerOptions::default()).await?;
//! # let postgres = PostgresServer::start(&dir.path().join("postgres"), PostgresServerOptions::default()).await?;
//! # let (database_url, redis_url) = (postgres.url("postgres"), redis.url());
//! # use quota_gate::runtime::{Runtime, RuntimeOptions};
//! # let options = RuntimeOptions::new(&database_url, &redis_url, &[7; 32])?;
//! # options.postgres.migrate().await?;
//! # let runtime = Runtime::start(options).await?;
//! # let gate = runtime.gate().clone();
//! # let request = Request::post("/chat").header("x-user", "alice").body(Body::empty())?;
//! # let answer = app(gate.clone()).oneshot(request).await?;
//! # axum::body::to_bytes(answer.into_body(), 100).await?;
//! # while gate.quota(&UserId::parse("alice")?).await?.used.get() != 2 {
//! #     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
//! # }
//! # runtime.shutdown(std::time::Duration::from_secs(20)).await;
//! # Ok(())
//! # }
//! ```

mod admit;
mod answer_cost;
mod body;
mod charge_at_expiry;
mod hold_guard;
mod layer;
mod service;
mod settlements;

use quota_gate::{
    domain::{
        ap::Ap,
        decision::Denied,
        quota::Quota,
        user_id::{SessionId, UserId},
    },
    gate::GateError,
};

pub use quota_gate::domain::client_gone::ClientGone;

pub use self::{
    admit::{Admission, Admitter},
    answer_cost::AnswerCost,
    body::MeteredBody,
    layer::QuotaLayer,
    service::QuotaService,
    settlements::Settlements,
};

/// Who sends a message, and what it costs at most.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The user.
    pub user: UserId,
    /// The conversation.
    pub session: SessionId,
    /// What is held, and charged unless [`AnswerCost`] notes another cost.
    pub ap: Ap,
}

/// Why a message was not admitted.
#[derive(Debug)]
pub enum Refusal {
    /// The quota does not cover the message.
    Denied(Denied),
    /// The gate cannot decide.
    Failed(GateError),
}

/// The user's quota with this request's hold in it. An extension of the request, for handlers that show it.
#[derive(Debug, Clone)]
pub struct Admitted(pub Quota);
