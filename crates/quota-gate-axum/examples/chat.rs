//! A chat service behind the gate. Each message is held before it is answered, charged when its answer has ended, and
//! free if it failed. The model echoes what it receives.
//!
//! `DATABASE_URL=… REDIS_URL=… RESERVATION_SECRET=… cargo run -p quota-gate-axum --example chat`, then
//! `curl -N localhost:3000/chat -H 'x-user: alice' -d 'hello'`. (A real service identifies its users by a session, not
//! by a header.)

#![expect(clippy::print_stdout, reason = "an example prints its results")]
#![expect(clippy::disallowed_methods, reason = "an example has no configuration but its environment")]

use std::{env, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    http::request::Parts,
    response::{IntoResponse, Response},
    routing::post,
};
use quota_gate::{
    domain::{
        ap::Ap,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    runtime::{Runtime, RuntimeOptions},
};
use quota_gate_axum::{AnswerCost, Ask, QuotaLayer, Refusal};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// The model: notes its tokens, and streams its answer.
async fn chat(Extension(cost): Extension<AnswerCost>, message: Body) -> Body {
    cost.set_tokens(Tokens::new(7).unwrap_or_default());
    message
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn ask(parts: &Parts) -> Result<Ask, Response> {
    let user = parts.headers.get("x-user").and_then(|user| UserId::parse(user.to_str().ok()?).ok());
    let user = user.ok_or_else(|| "the header x-user is missing\n".into_response())?;
    Ok(Ask { user, session: SessionId::unnamed(), ap: Ap::ONE })
}

fn refuse(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Denied(denied) => format!("quota exceeded: {} AP short\n", denied.shortfall()).into_response(),
        Refusal::Failed(error) => format!("try again later: {error}\n").into_response(),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secret = env::var("RESERVATION_SECRET")?;
    let options = RuntimeOptions::new(&env::var("DATABASE_URL")?, &env::var("REDIS_URL")?, secret.as_bytes())?;
    let runtime = Runtime::start(options).await?;
    let layer = QuotaLayer::new(runtime.gate().clone(), ask, refuse);
    let settlements = layer.settlements();
    let app = Router::new().route("/chat", post(chat)).layer(layer);
    let listener = TcpListener::bind(env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let outcome = tokio::select! {
        served = async { axum::serve(listener, app).with_graceful_shutdown(stopped).await } => served.map_err(Into::into),
        failed = runtime.failed() => Err(failed.into()),
    };
    settlements.finished().await;
    runtime.shutdown(Duration::from_secs(20)).await;
    outcome
}
