//! Errors as clients of OpenAI's API expect them: <https://platform.openai.com/docs/guides/error-codes>.

use axum::{
    Json, Router,
    extract::OriginalUri,
    http::{HeaderName, HeaderValue, Method, header},
    response::{IntoResponse, Response},
    routing::any,
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::http::answers::{
    headers::rate_limit,
    limits::retry_after,
    problem::{self, Code, Problem},
    quota::DenialNumbers,
    remedies::RemedyBody,
    time::Seconds,
};
use quota_gate::{
    domain::{
        decision::Denied,
        user_limits::Limit,
        window::{Window, WindowUnit},
    },
    gate::{Gate, GateError},
};
use quota_gate_axum::Refusal;

/// The official clients read this header before the status. Without it, they retry a 429.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error in the format of OpenAI's API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError<'a> {
    error: ErrorBody<'a>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorBody<'a> {
    /// Human-readable description.
    message: String,
    /// The class of error; `insufficient_quota` if the user's quota does not cover the message.
    #[serde(rename = "type")]
    #[schema(example = "insufficient_quota")]
    kind: &'static str,
    /// Always null.
    #[schema(required = true)]
    param: Option<String>,
    /// The problem code, as in the gate's own API. `QUOTA_EXCEEDED` adds `required`, `remaining`, `shortfall`,
    /// `quotaResetAt`, `recommendedUpgrade` and `remedies`, and for a level with windows or concurrency `limits` and
    /// `retryAt`, as in the gate's own denials.
    code: Code,
    #[serde(flatten)]
    #[schema(ignore)]
    quota: Option<DenialNumbers<'a>>,
}

impl OpenAiError<'_> {
    /// Converts a problem to an OpenAI error.
    pub(crate) fn response(problem: Problem) -> Response {
        let kind = match problem.code.status().as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let code = problem.code;
        let retry = if may_be_retried(&problem) { "true" } else { "false" };
        let message = problem.detail.clone().unwrap_or_else(|| problem.title.to_owned());
        // Keeps the problem's status and headers.
        let (mut parts, _) = problem.into_response().into_parts();
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(X_SHOULD_RETRY, HeaderValue::from_static(retry));
        let error = ErrorBody { message, kind, param: None, code, quota: None };
        (parts.status, parts.headers, Json(OpenAiError { error })).into_response()
    }

    fn denied(gate: &Gate, denied: &Denied, remedies: Vec<RemedyBody>) -> Response {
        let message = denial_message(gate, denied);
        let levels = gate.levels();
        let quota = DenialNumbers::new(gate, &levels, denied, remedies);
        let (kind, code) = ("insufficient_quota", Code::QuotaExceeded);
        let error = ErrorBody { message, kind, param: None, code, quota: Some(quota) };
        let mut headers = rate_limit(&denied.quota, gate.calendar());
        if let Some(seconds) = retry_after(denied, gate.calendar()) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        (code.status(), [(X_SHOULD_RETRY, "false")], headers, Json(OpenAiError { error })).into_response()
    }
}

/// The first limit that the message does not fit, in words.
fn denial_message(gate: &Gate, denied: &Denied) -> String {
    let (required, binding) = (denied.required.get(), denied.binding(gate.calendar()));
    let state = binding.iter().map(|binding| binding.state).find(|state| state.limit != Limit::Period);
    let again =
        denied.retry_at(gate.calendar()).map(|at| format!(" Try again at {}.", Seconds::after(at))).unwrap_or_default();
    match state.map(|state| (state.limit, state)) {
        Some((Limit::Window(Window { key, limit }), state)) => {
            let (unit, every) = (if key.unit == WindowUnit::Ap { "AP" } else { "messages" }, key.every());
            let cost = if key.unit == WindowUnit::Ap { format!("it costs {required} AP, and ") } else { String::new() };
            format!(
                "Your chat quota does not cover this message: {cost}{} of {limit} {unit} per {every} are left.{again}",
                state.remaining()
            )
        }
        Some((Limit::Concurrency, state)) => format!(
            "You have {} messages in progress, which is the maximum. Wait until one of them is finished.",
            state.held
        ),
        Some((Limit::Period, _)) | None => format!(
            "Your chat quota does not cover this message: it costs {required} AP, and {} AP are left until the quota is \
             reset.",
            denied.quota.available().get()
        ),
    }
}

/// Whether a retry may succeed, and charges nothing twice.
fn may_be_retried(problem: &Problem) -> bool {
    let may_change = matches!(
        problem.code,
        Code::Conflict | Code::RateLimited | Code::UpstreamFailed | Code::QuotaUnavailable | Code::UpstreamTimeout
    );
    // If the outcome is unknown, the answer may have been generated and charged.
    may_change && !problem.is_final && !problem.indeterminate
}

/// Routes for all paths of the API that the proxy does not serve.
pub(crate) fn other_paths<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let refuse = async |OriginalUri(uri): OriginalUri| OpenAiError::response(problem::no_such_route(&uri));
    Router::new().route("/v1", any(refuse)).route("/v1/", any(refuse)).route("/v1/{*path}", any(refuse))
}

/// Answers to a method that a path of the proxy does not have.
pub(crate) async fn no_such_method(method: Method, uri: OriginalUri) -> Response {
    OpenAiError::response(problem::no_such_method(method, uri).await)
}

/// Answers of both generation routes, in addition to [`Refused`].
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes answers in the contract")]
pub(crate) enum GenerationAnswer {
    #[response(status = 200, description = "The upstream's answer, whole or as server-sent events")]
    Answered(serde_json::Value),
    #[response(status = 400, description = "INVALID_REQUEST, or the upstream's error")]
    InvalidRequest(OpenAiError<'static>),
    #[response(status = 413, description = "PAYLOAD_TOO_LARGE")]
    TooLarge(OpenAiError<'static>),
    #[response(status = 415, description = "UNSUPPORTED_MEDIA_TYPE: a Content-Encoding besides gzip and deflate")]
    UnsupportedEncoding(OpenAiError<'static>),
    #[response(
        status = 429,
        description = "QUOTA_EXCEEDED, with `x-should-retry: false`; or RATE_LIMITED; or the upstream's error"
    )]
    Exceeded(OpenAiError<'static>),
    #[response(status = 503, description = "QUOTA_UNAVAILABLE: nothing was charged")]
    Unavailable(OpenAiError<'static>),
}

/// Errors of all routes of the proxy.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes answers in the contract")]
pub(crate) enum Refused {
    #[response(status = 401, description = "UNAUTHENTICATED")]
    Unauthenticated(OpenAiError<'static>),
    #[response(status = 403, description = "FORBIDDEN, or the upstream's error")]
    Forbidden(OpenAiError<'static>),
    #[response(status = 404, description = "NOT_FOUND: this gate has no upstream")]
    NoUpstream(OpenAiError<'static>),
    #[response(status = 502, description = "UPSTREAM_FAILED: nothing was charged")]
    UpstreamFailed(OpenAiError<'static>),
    #[response(status = 504, description = "UPSTREAM_TIMEOUT: nothing was charged")]
    UpstreamTimeout(OpenAiError<'static>),
}

/// Returns the response to a refused message. `remedies` are those of a denied one.
pub(crate) fn refuse(gate: &Gate, refusal: Refusal, remedies: impl FnOnce(&Denied) -> Vec<RemedyBody>) -> Response {
    match refusal {
        Refusal::Denied(denied) => OpenAiError::denied(gate, &denied, remedies(&denied)),
        Refusal::Failed(error) => OpenAiError::response(Problem::from_hold(error)),
    }
}

impl Problem {
    /// Converts an error of a reservation. If its answer was lost, the hold expires unsettled, so a retry is safe.
    fn from_hold(error: GateError) -> Self {
        match error {
            GateError::Indeterminate { .. } => {
                tracing::warn!(%error, "no decision");
                Self::unavailable("the quota cannot be checked now; nothing was charged, try again")
            }
            error => error.into(),
        }
    }
}
