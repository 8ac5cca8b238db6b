//! The handlers of the proxy, and what they share.

use std::{sync::Arc, time::Duration};

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

use crate::http::{
    AppState,
    answers::{
        headers::rate_limit,
        problem::{Code, Problem},
    },
    auth::Sender,
};
use crate::openai::{
    error::{GenerationAnswer, OpenAiError, Refused, refuse},
    metered_stream::{Form, MeteredStream},
    model_path::model_path,
    request::{Api, Generation, Plan},
    upstream::{Upstream, untouched},
};
use quota_gate::{
    domain::{
        model_costs::ModelCosts,
        user_id::{SessionId, UserId},
    },
    gate::Gate,
};
use quota_gate_axum::{Admission, Admitter, Ask, ClientGone, Settlements};

/// The conversation that a message belongs to. Clients set it as an extra header.
const X_SESSION_ID: &str = "x-session-id";

/// An OpenAI-compatible API behind the gate.
pub struct Proxy {
    gate: Gate,
    admitter: Admitter,
    upstream: Upstream,
    costs: ModelCosts,
    permits: Arc<Semaphore>,
    body_bytes_max: usize,
    body_timeout: Duration,
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
        Self {
            gate: gate.clone(),
            admitter: Admitter::new(gate.clone()).client_gone(client_gone),
            upstream,
            costs,
            permits: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
            body_bytes_max: limits.body_bytes_max,
            body_timeout: limits.body_timeout,
        }
    }

    /// What is being settled.
    #[must_use]
    pub fn settlements(&self) -> Settlements {
        self.admitter.settlements()
    }

    pub(crate) const fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    async fn generate(&self, api: Api, user: UserId, request: Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let session = session(&parts)?;
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Problem::shed())?;
        let body = timeout(self.body_timeout, to_bytes(body, self.body_bytes_max)).await;
        let body = body.map_err(|_| Problem::new(Code::InvalidRequest, "the body took too long"))?;
        let body = body.map_err(|_| {
            Problem::new(Code::PayloadTooLarge, format!("a body has at most {} bytes", self.body_bytes_max))
        })?;
        let Generation { ap, model, body, plan } = Generation::read(api, body, &self.costs)?;
        let admission = match self.admitter.admit(Ask { user, session, ap }).await {
            Ok(admission) => admission,
            Err(refusal) => return Ok(refuse(&self.gate, refusal)),
        };
        admission.answer_cost().set_model(model);
        let response = self.ask_upstream(&admission, plan, &parts, body, permit).await;
        Ok(admission.settle_by(response.unwrap_or_else(OpenAiError::response)))
    }

    /// Asks the upstream and meters its answer.
    async fn ask_upstream(
        &self,
        admission: &Admission,
        plan: Plan,
        parts: &Parts,
        body: Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response, Problem> {
        let path = upstream_path(parts.uri.path());
        let response = self.upstream.ask((Method::POST, path), &parts.headers, body).await?;
        if !response.status().is_success() {
            return Ok(untouched(response));
        }
        let form = form(response.headers());
        let (head, body) = response.into_parts();
        let (cost, idle_timeout) = (admission.answer_cost(), self.upstream.idle_timeout);
        let metered = MeteredStream::new(body, (form, plan), cost, idle_timeout, permit).begun().await?;
        let mut response = Response::from_parts(head, Body::new(metered));
        if let Some(quota) = admission.quota() {
            response.headers_mut().extend(rate_limit(quota, self.gate.calendar()));
        }
        Ok(response)
    }

    async fn look_up(&self, path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        self.upstream.ask((Method::GET, path), headers, Bytes::new()).await.map(untouched)
    }
}

/// Asks the model, if the quota covers what it costs. Charged when the answer has ended, and only if it was given.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "models", operation_id = "createChatCompletion",
    params(
        ("X-User-Id" = Option<String>, Header, description = "The user; required for services"),
        ("X-Session-Id" = Option<String>, Header, description = "The conversation"),
    ),
    request_body(content = serde_json::Value, description = "As the upstream's API has it; `model` is required"),
    responses(GenerationAnswer, Refused),
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
        ("X-User-Id" = Option<String>, Header, description = "The user; required for services"),
        ("X-Session-Id" = Option<String>, Header, description = "The conversation"),
    ),
    request_body(content = serde_json::Value, description = "As the upstream's API has it; `model` is required"),
    responses(GenerationAnswer, Refused),
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
    params(("X-User-Id" = Option<String>, Header, description = "The user; required for services")),
    responses(
        (status = 200, description = "The upstream's answer", body = serde_json::Value),
        (status = 400, description = "INVALID_REQUEST", body = OpenAiError<'_>),
        Refused,
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
