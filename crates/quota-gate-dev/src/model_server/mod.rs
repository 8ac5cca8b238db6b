//! A local model server: speaks the protocol of OpenAI's API, streams at a configurable pace, reports usage, and misbehaves
//! when the name of the model says so.
//!
//! | file | what |
//! | --- | --- |
//! | `behaviour` | what a model's name asks for: `local`, `local:words=200,pace-ms=5`, `local:cut=3` |
//! | `chat` | `POST /v1/chat/completions` |
//! | `responses` | `POST /v1/responses` |
//! | `answer` | an answer as steps, and its way to the client |

mod answer;
mod behaviour;
mod chat;
mod responses;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::HeaderMap,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use self::{
    answer::{AnswerPart, give},
    behaviour::Behaviour,
};

/// What it calls itself.
pub const LOCAL_MODEL: &str = "local";
/// As much as a conversation with pictures.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A running model server on 127.0.0.1. It ends when this is dropped.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    seen: Arc<Seen>,
    serving: AbortHandle,
}

/// What a model server saw.
#[derive(Debug, Default)]
struct Seen {
    key: String,
    asked: AtomicU64,
    answered: AtomicU64,
    under_way: AtomicU64,
    headers: Mutex<HeaderMap>,
}

impl ModelServer {
    /// Starts one that answers only requests with this key.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(key: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // A word is one small write.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let seen = Arc::new(Seen { key: key.to_owned(), ..Seen::default() });
        let router = router(&seen);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { address, seen, serving })
    }

    /// What OpenAI's clients call the base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many answers were asked for.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.seen.asked.load(Ordering::SeqCst)
    }

    /// How many were given to their end.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::SeqCst)
    }

    /// How many are being given.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.seen.under_way.load(Ordering::SeqCst)
    }

    /// The headers of the last request.
    #[must_use]
    pub fn last_headers(&self) -> HeaderMap {
        self.seen.headers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn router(seen: &Arc<Seen>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/responses", post(responses::respond))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(async |Path(id): Path<String>| Json(model(&id))))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(seen), check_key))
        .with_state(Arc::clone(seen))
}

async fn check_key(State(seen): State<Arc<Seen>>, request: Request, next: Next) -> Response {
    let expected = format!("Bearer {}", seen.key);
    let is_known = request.headers().get("authorization").is_some_and(|given| given.as_bytes() == expected.as_bytes());
    request.headers().clone_into(&mut seen.headers.lock().unwrap_or_else(PoisonError::into_inner));
    if is_known { next.run(request).await } else { failure(401, "Incorrect API key provided", "invalid_api_key") }
}

async fn models() -> Json<serde_json::Value> {
    Json(json!({"object": "list", "data": [model(LOCAL_MODEL)]}))
}

/// Every name is one of the same model.
fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "quota-gate"})
}

/// An error as OpenAI's API shows it.
fn failure(status: u16, message: &str, code: &str) -> Response {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    let mut response = Json(body).into_response();
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}

/// What every answer begins with: how it is to be given; or what is given instead of it.
async fn begin(seen: &Arc<Seen>, request: &Value) -> Result<Behaviour, Response> {
    seen.asked.fetch_add(1, Ordering::SeqCst);
    let behaviour = Behaviour::of(request["model"].as_str().unwrap_or_default());
    let behaviour = behaviour.map_err(|problem| failure(400, &problem, "unknown_model"))?;
    // Even no time at all would be a tick of the timer.
    if !behaviour.head_delay.is_zero() {
        tokio::time::sleep(behaviour.head_delay).await;
    }
    if let Some(status) = behaviour.status {
        return Err(failure(status, "the model misbehaves as it was asked to", "misbehaviour"));
    }
    if behaviour.garbage {
        return Err(give(seen, "text/html", vec![AnswerPart::Send("<html>It works!</html>".into())]));
    }
    Ok(behaviour)
}
