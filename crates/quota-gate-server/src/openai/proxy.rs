//! The handlers of the proxy and their shared state.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    response::Response,
};
use http_body_util::LengthLimitError;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use crate::http::{
    AppState,
    answers::{
        headers::rate_limit,
        problem::{Code, Problem},
        quota::level_name,
        remedies::{RemedyBody, Shop},
    },
    auth::Sender,
    model_access::require_allowed,
};
use crate::openai::{
    decoding::{Coding, decode_whole},
    error::{GenerationAnswer, OpenAiError, Refused, refuse},
    metered_stream::MeteredStream,
    model_path::model_path,
    reading::register_counters,
    request::{Api, Generation, with_model},
    upstream::{Upstream, pass_through},
};
use quota_gate::{
    domain::{
        decision::Denied,
        remedy::Asked,
        user_id::{SessionId, UserId},
    },
    gate::Gate,
};
use quota_gate_axum::{Admission, Admitter, Ask, ClientGone, Refusal, Settlements};

/// Header in which a client sends the id of the conversation.
const X_SESSION_ID: &str = "x-session-id";

/// Header that names the model which answers because the quota does not cover the one that was asked for.
const X_QUOTA_FALLBACK: HeaderName = HeaderName::from_static("x-quota-fallback");
/// Counts messages that another model answers.
const FALLBACKS: &str = "quota_gate_proxy_fallbacks_total";

/// An OpenAI-compatible API behind the gate.
pub struct Proxy {
    gate: Gate,
    admitter: Admitter,
    upstream: Upstream,
    shop: Shop,
    permits: Arc<Semaphore>,
    body_bytes_max: usize,
    body_timeout: Duration,
}

/// Limits of the proxy.
#[derive(Debug, Clone, Copy)]
pub struct ProxyLimits {
    /// Maximum concurrent requests to the upstream.
    pub requests_in_flight_max: usize,
    /// Maximum size of a request body.
    pub body_bytes_max: usize,
    /// Time for a client to send its body.
    pub body_timeout: Duration,
}

impl Proxy {
    /// Creates a proxy that charges `gate` for answers of `upstream`.
    #[must_use]
    pub fn new(gate: &Gate, upstream: Upstream, shop: Shop, client_gone: ClientGone, limits: ProxyLimits) -> Self {
        register_counters();
        metrics::counter!(FALLBACKS).increment(0);
        Self {
            gate: gate.clone(),
            admitter: Admitter::new(gate.clone()).client_gone(client_gone),
            upstream,
            shop,
            permits: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
            body_bytes_max: limits.body_bytes_max,
            body_timeout: limits.body_timeout,
        }
    }

    /// Settlements in progress.
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
        let coding = Coding::of(&parts.headers);
        if coding == Coding::Other {
            return Ok(unsupported_coding());
        }
        let body = timeout(self.body_timeout, to_bytes(body, self.body_bytes_max)).await;
        let body = body.map_err(|_| Problem::new(Code::InvalidRequest, "the body took too long"))?;
        let body = body.map_err(|error| self.unread_body(&error))?;
        let body = self.decode(coding, body).await?;
        let costs = self.shop.costs().get();
        let read = |body| Generation::read((api, self.upstream.stream_usage), body, &costs);
        let generation = read(body.clone())?;
        require_allowed(&self.gate, &costs, &user, generation.models.iter().map(String::as_str)).await?;
        let ask = |ap| Ask { user: user.clone(), session: session.clone(), ap };
        let denied = match self.admitter.admit(ask(generation.ap)).await {
            Ok(admission) => return Ok(self.answer(admission, generation, &parts, permit).await),
            Err(Refusal::Denied(denied)) => denied,
            Err(refusal) => return Ok(self.refuse(refusal, &generation)),
        };
        let levels = self.gate.levels();
        let fallback = costs.fallback(level_name(&levels, denied.quota.level));
        let Some(fallback) = fallback.filter(|fallback| **fallback != generation.model) else {
            return Ok(self.refuse(Refusal::Denied(denied), &generation));
        };
        let body = with_model(&body, fallback).ok_or_else(|| Problem::bare(Code::InternalError))?;
        let instead = read(body)?;
        let admission = match self.admitter.admit(ask(instead.ap)).await {
            Ok(admission) => admission,
            // Of the model that was asked for.
            Err(Refusal::Denied(_)) => return Ok(self.refuse(Refusal::Denied(denied), &generation)),
            Err(refusal) => return Ok(self.refuse(refusal, &generation)),
        };
        metrics::counter!(FALLBACKS).increment(1);
        let mut response = self.answer(admission, instead, &parts, permit).await;
        if let Ok(name) = HeaderValue::from_bytes(fallback.as_str().as_bytes()) {
            response.headers_mut().insert(X_QUOTA_FALLBACK, name);
        }
        Ok(response)
    }

    fn refuse(&self, refusal: Refusal, generation: &Generation) -> Response {
        let asked = Asked { models: &generation.models, priced_answers: Some(generation.answers) };
        let remedies = |denied: &Denied| -> Vec<RemedyBody> { self.shop.remedies(&self.gate, denied, asked) };
        refuse(&self.gate, refusal, remedies)
    }

    /// Forwards an admitted message, and settles it by its answer.
    async fn answer(
        &self,
        admission: Admission,
        generation: Generation,
        parts: &Parts,
        permit: OwnedSemaphorePermit,
    ) -> Response {
        admission.answer_cost().set_model(generation.model.clone());
        let response = self.forward(&admission, generation, parts, permit).await;
        admission.settle_by(response.unwrap_or_else(OpenAiError::response))
    }

    /// Decodes a compressed body. The upstream gets it decoded.
    async fn decode(&self, coding: Coding, body: Bytes) -> Result<Bytes, Problem> {
        if coding == Coding::Identity {
            return Ok(body);
        }
        let bytes_max = self.body_bytes_max;
        // It takes a tenth of a second for the largest body.
        let decoded = spawn_blocking(move || decode_whole(coding, &body, bytes_max)).await;
        let decoded = decoded.map_err(|_| Problem::bare(Code::InternalError))?;
        decoded.map_err(|error| match error.kind() {
            ErrorKind::FileTooLarge => self.too_large(),
            _ => Problem::new(Code::InvalidRequest, format!("the body's Content-Encoding is damaged: {error}")),
        })
    }

    fn unread_body(&self, error: &axum::Error) -> Problem {
        if std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) {
            return self.too_large();
        }
        Problem::new(Code::InvalidRequest, "the body is incomplete")
    }

    fn too_large(&self) -> Problem {
        Problem::new(Code::PayloadTooLarge, format!("a body has at most {} bytes", self.body_bytes_max))
    }

    /// Forwards an admitted request and meters its answer.
    async fn forward(
        &self,
        admission: &Admission,
        generation: Generation,
        parts: &Parts,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response, Problem> {
        let Generation { meter, body, plan, .. } = generation;
        let path = upstream_path(parts.uri.path());
        let response = self.upstream.send((Method::POST, path), &parts.headers, body).await?;
        if !response.status().is_success() {
            return Ok(pass_through(response));
        }
        let (mut head, body) = response.into_parts();
        let (cost, idle_timeout) = ((admission.answer_cost(), meter), self.upstream.idle_timeout);
        let metered = MeteredStream::new((&head.headers, body), plan, cost, idle_timeout, permit);
        let metered = metered.with_first_piece().await?;
        if !metered.is_encoded() {
            head.headers.remove(header::CONTENT_ENCODING);
        }
        let mut response = Response::from_parts(head, Body::new(metered));
        if let Some(quota) = admission.quota() {
            response.headers_mut().extend(rate_limit(quota, self.gate.calendar()));
        }
        Ok(response)
    }

    /// Forwards a request that costs nothing.
    async fn get(&self, path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        self.upstream.send((Method::GET, path), headers, Bytes::new()).await.map(pass_through)
    }
}

/// Sends a message to the model if the user's quota covers its cost. Charges it when the answer has ended, and only if
/// the model answered.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "models", operation_id = "createChatCompletion",
    params(
        ("X-User-Id" = Option<String>, Header, description = "The user; required for services"),
        ("X-Session-Id" = Option<String>, Header, description = "Id of the conversation"),
    ),
    request_body(content = serde_json::Value, description = "A request of the upstream's API; `model` is required"),
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

/// Does the same as `/v1/chat/completions`, in the format of the Responses API.
#[utoipa::path(
    post, path = "/v1/responses", tag = "models", operation_id = "createResponse",
    params(
        ("X-User-Id" = Option<String>, Header, description = "The user; required for services"),
        ("X-Session-Id" = Option<String>, Header, description = "Id of the conversation"),
    ),
    request_body(content = serde_json::Value, description = "A request of the upstream's API; `model` is required"),
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

/// Returns the upstream's models. Costs nothing. `GET /v1/models/{model}` is forwarded as well.
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
        state.proxy()?.get("/models", &headers).await
    };
    answer.await.unwrap_or_else(OpenAiError::response)
}

/// Returns one of the upstream's models.
pub(crate) async fn model(
    State(state): State<AppState>,
    sender: Result<Sender, Problem>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        sender?;
        let Path(name) = name.map_err(|_| Problem::new(Code::InvalidRequest, "the model's name is not UTF-8"))?;
        state.proxy()?.get(&model_path(&name)?, &headers).await
    };
    answer.await.unwrap_or_else(OpenAiError::response)
}

/// Refuses a body in a coding that the gate does not know, and names those that it knows (RFC 9110, section 15.5.16).
fn unsupported_coding() -> Response {
    let detail = "the Content-Encoding of a body must be gzip or deflate, or absent";
    let mut response = OpenAiError::response(Problem::new(Code::UnsupportedMediaType, detail));
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    response
}

/// Removes `/v1`, which the upstream's base URL contains.
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
