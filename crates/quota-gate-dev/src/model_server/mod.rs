//! A local model server with OpenAI's API. It streams at a configurable pace, reports usage, and misbehaves if the name
//! of the model requests it.
//!
//! | file | what |
//! | --- | --- |
//! | `behaviour` | what a model's name requests: `local`, `local:words=200,pace-ms=5`, `local:cut=3` |
//! | `chat` | `POST /v1/chat/completions` |
//! | `responses` | `POST /v1/responses` |
//! | `answer` | an answer as a list of steps, and its delivery to the client |

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

/// Name of its model.
pub const LOCAL_MODEL: &str = "local";
/// Enough for a conversation with images.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A running model server on 127.0.0.1. Dropping it stops it.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    seen: Arc<Seen>,
    serving: AbortHandle,
}

/// State of a model server: its key, and what it received and sent.
#[derive(Debug, Default)]
struct Seen {
    key: String,
    asked: AtomicU64,
    answered: AtomicU64,
    under_way: AtomicU64,
    headers: Mutex<HeaderMap>,
}

impl ModelServer {
    /// Starts a server that accepts only requests with this key.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(key: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // Each word is a small write, which must not wait for more data.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let seen = Arc::new(Seen { key: key.to_owned(), ..Seen::default() });
        let router = router(&seen);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { address, seen, serving })
    }

    /// Returns the base URL for OpenAI's clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Returns the number of requested answers.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.seen.asked.load(Ordering::SeqCst)
    }

    /// Returns the number of answers that were delivered completely.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::SeqCst)
    }

    /// Returns the number of answers in progress.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.seen.under_way.load(Ordering::SeqCst)
    }

    /// Returns the headers of the last request.
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

/// Describes the model. All names refer to the same one.
fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "quota-gate"})
}

/// Returns an error in the format of OpenAI's API.
fn failure(status: u16, message: &str, code: &str) -> Response {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    let mut response = Json(body).into_response();
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}

/// Starts every answer: returns how to answer, or a response to send instead.
async fn begin(seen: &Arc<Seen>, request: &Value) -> Result<Behaviour, Response> {
    seen.asked.fetch_add(1, Ordering::SeqCst);
    let behaviour = Behaviour::of(request["model"].as_str().unwrap_or_default());
    let behaviour = behaviour.map_err(|problem| failure(400, &problem, "unknown_model"))?;
    // A sleep of zero would still take a tick of the timer.
    if !behaviour.head_delay.is_zero() {
        tokio::time::sleep(behaviour.head_delay).await;
    }
    if let Some(status) = behaviour.status {
        return Err(failure(status, "the model misbehaves as requested", "misbehaviour"));
    }
    if behaviour.garbage {
        return Err(give(seen, "text/html", vec![AnswerPart::Send("<html>It works!</html>".into())]));
    }
    Ok(behaviour)
}
