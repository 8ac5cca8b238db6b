//! A chat service behind the gate: AP are held before each answer, and charged when it ends. A failed answer is free.
//!
//! `DATABASE_URL=… REDIS_URL=… QUOTA_GATE__AUTH__RESERVATION_SECRET=… cargo run --example axum_chat`, then
//! `curl -N localhost:3000/chat -H 'x-user: free-user' -d 'hello'`. (A real service identifies users by a session, not by
//! a header.)

use std::time::Duration;

use axum::{
    Extension, Router,
    http::request::Parts,
    response::{IntoResponse, Response},
    routing::post,
};
use quota_gate::{
    app::App,
    config::Config,
    domain::{ap::Ap, usage::Tokens, user_id::SessionId, user_id::UserId},
    http::{ServerOptions, serve},
    middleware::{Ask, QuotaLayer, Refusal, Spent},
};
use tokio_util::sync::CancellationToken;

/// The model: reports its tokens and returns the answer.
async fn chat(Extension(spent): Extension<Spent>, message: String) -> String {
    spent.set_tokens(Tokens::new(message.len().try_into().unwrap_or(0)).unwrap_or_default());
    format!("you said {message:?}\n")
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn ask(parts: &Parts) -> Result<Ask, Response> {
    let who = parts.headers.get("x-user").and_then(|who| UserId::parse(who.to_str().ok()?).ok());
    let user = who.ok_or_else(|| "set the x-user header to a user id\n".into_response())?;
    let session = SessionId::parse("chat-1").map_err(|error| error.to_string().into_response())?;
    Ok(Ask { user, session, ap: Ap::ONE })
}

fn refuse(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Denied(denied) => format!("quota exceeded: {} AP short\n", denied.shortfall()).into_response(),
        Refusal::Failed(error) => format!("try again later: {error}\n").into_response(),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = App::build(Config::load(None)?).await?;
    let stop = quota_gate::shutdown::on_signal()?;
    let flushed = CancellationToken::new();
    let flushing = tokio::spawn(app.flusher().run(Duration::from_millis(200), flushed.clone()));
    let layer = QuotaLayer::new(app.gate.clone(), ask, refuse);
    let settlements = layer.settlements();
    let options = ServerOptions {
        connections_max: 1_000,
        header_read_timeout: Duration::from_secs(5),
        write_stall_timeout: Duration::from_secs(30),
        stop_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(20),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    serve(listener, Router::new().route("/chat", post(chat)).layer(layer), options, stop).await;
    settlements.finished().await;
    flushed.cancel();
    flushing.await?;
    Ok(())
}
