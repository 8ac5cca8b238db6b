//! The handlers of the proxy, and what they share.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, Method, header, request::Parts},
    response::Response,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};

use crate::http::{
    AppState,
    answers::{
        headers::rate_limit,
        problem::{Code, Problem},
    },
    auth::Sender,
};
use crate::openai::{
    error::{OpenAiError, Relayed, refuse},
    metered_stream::{Form, MeteredStream},
    model_path::model_path,
    request::{Api, Generation, Plan},
    upstream::{Upstream, untouched},
};
use quota_gate::{
    domain::{
        model_costs::ModelCosts,
        model_name::ModelName,
        user_id::{SessionId, UserId},
    },
    gate::Gate,
};
use quota_gate_axum::{Admitted, AnswerCost, Ask, ClientGone, QuotaLayer, Settlements};

/// The conversation that a message belongs to. Clients set it as an extra header.
const X_SESSION_ID: &str = "x-session-id";

/// An OpenAI-compatible API behind the gate.
pub struct Proxy {
    upstream: Upstream,
    costs: ModelCosts,
    permits: Arc<Semaphore>,
    body_bytes_max: usize,
    body_timeout: Duration,
    settlements: Settlements,
    gated: BoxCloneSyncService<Request, Response, Infallible>,
}

/// How much at once.
#[derive(Debug, Clone, Copy)]
pub struct ProxyLimits {
    /// Most requests at work at the upstream.
    pub requests_in_flight_max: usize,
    /// Longest request body.
    pub body_bytes_max: usize,
    /// How long a client may take to send it.
    pub body_timeout: Duration,
}

/// What the service behind the gate needs to know, on its way through the layer.
#[derive(Clone)]
struct Errand {
    plan: Plan,
    model: ModelName,
    body: Bytes,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Proxy {
    /// Puts the gate before the upstream.
    #[must_use]
    pub fn new(
        gate: &Gate,
        upstream: Upstream,
        costs: ModelCosts,
        client_gone: ClientGone,
        limits: ProxyLimits,
    ) -> Self {
        let refusing = gate.clone();
        let layer = QuotaLayer::new(gate.clone(), prepared, move |refusal| refuse(&refusing, refusal));
        let layer = layer.client_gone(client_gone);
        let settlements = layer.settlements();
        let (asking, gate) = (upstream.clone(), gate.clone());
        let service = service_fn(move |request| forward(gate.clone(), asking.clone(), request));
        Self {
            upstream,
            costs,
            permits: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
            body_bytes_max: limits.body_bytes_max,
            body_timeout: limits.body_timeout,
            settlements,
            gated: BoxCloneSyncService::new(layer.layer(service)),
        }
    }

    /// What is being settled.
    #[must_use]
    pub fn settlements(&self) -> Settlements {
        self.settlements.clone()
    }

    pub(crate) const fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    async fn generate(&self, api: Api, user: UserId, request: Request) -> Result<Response, Problem> {
        let (mut parts, body) = request.into_parts();
        let session = session(&parts)?;
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Problem::shed())?;
        let body = timeout(self.body_timeout, to_bytes(body, self.body_bytes_max)).await;
        let body = body.map_err(|_| Problem::new(Code::InvalidRequest, "the body took too long"))?;
        let body = body.map_err(|_| {
            Problem::new(Code::PayloadTooLarge, format!("a body has at most {} bytes", self.body_bytes_max))
        })?;
        let Generation { ap, model, body, plan } = Generation::read(api, body, &self.costs)?;
        parts.extensions.insert(Ask { user, session, ap });
        parts.extensions.insert(Errand { plan, model, body, permit: Arc::new(permit) });
        let answer = self.gated.clone().oneshot(Request::from_parts(parts, Body::empty())).await;
        Ok(answer.unwrap_or_else(|never| match never {}))
    }

    async fn look_up(&self, path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        self.upstream.ask((Method::GET, path), headers, Bytes::new()).await.map(untouched)
    }
}

/// Asks the model, if the quota covers what it costs. Charged when the answer has ended, and only if it was given.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "models", operation_id = "createChatCompletion",
    params(
        ("X-User-Id" = Option<String>, Header, description = "The user, when a chat service asks"),
        ("X-Session-Id" = Option<String>, Header, description = "The conversation"),
    ),
    request_body(content = serde_json::Value, description = "As the upstream's API has it; `model` is required"),
    responses(
        Relayed,
    ),
    security(("user" = []), ("service" = [])),
)]
pub(crate) async fn chat_completions(
    State(state): State<AppState>,
    sender: Result<Sender, Problem>,
    request: Request,
) -> Response {
    generate(&state, Api::ChatCompletions, sender, request).await
}

/// The same, by the other of the two APIs.
#[utoipa::path(
    post, path = "/v1/responses", tag = "models", operation_id = "createResponse",
    params(
        ("X-User-Id" = Option<String>, Header, description = "The user, when a chat service asks"),
        ("X-Session-Id" = Option<String>, Header, description = "The conversation"),
    ),
    request_body(content = serde_json::Value, description = "As the upstream's API has it; `model` is required"),
    responses(
        Relayed,
    ),
    security(("user" = []), ("service" = [])),
)]
pub(crate) async fn responses(
    State(state): State<AppState>,
    sender: Result<Sender, Problem>,
    request: Request,
) -> Response {
    generate(&state, Api::Responses, sender, request).await
}

async fn generate(state: &AppState, api: Api, sender: Result<Sender, Problem>, request: Request) -> Response {
    let answer = async {
        let Sender(user) = sender?;
        state.proxy()?.generate(api, user, request).await
    };
    answer.await.unwrap_or_else(OpenAiError::response)
}

/// The upstream's models; free. `GET /v1/models/{model}` is passed on as well.
#[utoipa::path(
    get, path = "/v1/models", tag = "models", operation_id = "listModels",
    params(("X-User-Id" = Option<String>, Header, description = "The user, when a chat service asks")),
    responses(
        (status = 200, description = "The upstream's answer", body = serde_json::Value),
        (status = 400, description = "INVALID_REQUEST", body = OpenAiError),
        (status = 401, description = "UNAUTHENTICATED", body = OpenAiError),
        (status = 403, description = "FORBIDDEN", body = OpenAiError),
        (status = 404, description = "NOT_FOUND: this gate has no upstream", body = OpenAiError),
        (status = 502, description = "UPSTREAM_FAILED", body = OpenAiError),
        (status = 504, description = "UPSTREAM_TIMEOUT", body = OpenAiError),
    ),
    security(("user" = []), ("service" = [])),
)]
pub(crate) async fn models(
    State(state): State<AppState>,
    sender: Result<Sender, Problem>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        sender?;
        state.proxy()?.look_up("/models", &headers).await
    };
    answer.await.unwrap_or_else(OpenAiError::response)
}

/// One of them.
pub(crate) async fn model(
    State(state): State<AppState>,
    sender: Result<Sender, Problem>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        sender?;
        let Path(name) = name.map_err(|_| Problem::new(Code::InvalidRequest, "the model's name is no UTF-8"))?;
        state.proxy()?.look_up(&model_path(&name)?, &headers).await
    };
    answer.await.unwrap_or_else(OpenAiError::response)
}

/// What `generate` has put there.
#[expect(clippy::result_large_err, reason = "the error is the answer, as the layer wants it")]
fn prepared(parts: &Parts) -> Result<Ask, Response> {
    parts.extensions.get::<Ask>().cloned().ok_or_else(|| OpenAiError::response(Problem::bare(Code::InternalError)))
}

/// The service behind the gate: asks the upstream, and taps its answer.
async fn forward(gate: Gate, upstream: Upstream, request: Request) -> Result<Response, Infallible> {
    let (parts, _) = request.into_parts();
    let (Some(errand), Some(answer_cost)) = (parts.extensions.get::<Errand>(), parts.extensions.get::<AnswerCost>())
    else {
        return Ok(OpenAiError::response(Problem::bare(Code::InternalError)));
    };
    let Errand { plan, model, body, permit } = errand.clone();
    answer_cost.set_model(model);
    let path = upstream_path(parts.uri.path());
    let response = match upstream.ask((Method::POST, path), &parts.headers, body).await {
        Ok(response) => response,
        Err(problem) => return Ok(OpenAiError::response(problem)),
    };
    if !response.status().is_success() {
        return Ok(untouched(response));
    }
    let form = form(response.headers());
    let (head, body) = response.into_parts();
    let metered_stream = MeteredStream::new(body, (form, plan), answer_cost.clone(), upstream.idle_timeout, permit);
    let mut response = match metered_stream.begun().await {
        Ok(metered_stream) => Response::from_parts(head, Body::new(metered_stream)),
        Err(error) => return Ok(OpenAiError::response(error.into())),
    };
    if let Some(Admitted(quota)) = parts.extensions.get::<Admitted>() {
        response.headers_mut().extend(rate_limit(quota, gate.calendar()));
    }
    Ok(response)
}

fn form(headers: &HeaderMap) -> Form {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if headers.contains_key(header::CONTENT_ENCODING) {
        Form::Unreadable
    } else if content_type.starts_with("text/event-stream") {
        Form::Events
    } else {
        Form::Whole
    }
}

/// The base URL has the `/v1`.
fn upstream_path(path: &str) -> &str {
    path.strip_prefix("/v1").unwrap_or(path)
}

fn session(parts: &Parts) -> Result<SessionId, Problem> {
    let Some(value) = parts.headers.get(X_SESSION_ID) else { return Ok(SessionId::unnamed()) };
    Ok(SessionId::parse(value.to_str().unwrap_or("\n"))?)
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}
