//! Problems (RFC 9457, `application/problem+json`). Only this file maps errors to status codes.

use std::{any::Any, time::Duration};

use axum::{
    Json,
    extract::OriginalUri,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use quota_gate::{domain::InvalidInput, gate::GateError};

/// Time after which a client may try to open a quota stream again.
const STREAM_RETRY: Duration = Duration::from_mins(1);

/// Stable code of a kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    InvalidRequest,
    Unauthenticated,
    Forbidden,
    ModelNotAllowed,
    NotFound,
    MethodNotAllowed,
    Conflict,
    ReservationExpired,
    UserForgotten,
    UserBlocked,
    PayloadTooLarge,
    UnsupportedMediaType,
    Mismatch,
    QuotaExceeded,
    RateLimited,
    InternalError,
    UpstreamFailed,
    QuotaUnavailable,
    UpstreamTimeout,
}

/// Describes why a request failed (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// Identifies the kind of problem; see "Problems" in docs/http-api.md.
    #[serde(rename = "type")]
    #[schema(example = "urn:quota-gate:problem:invalid-request")]
    kind: String,
    /// Name of the kind of problem.
    pub(crate) title: &'static str,
    /// HTTP status code.
    status: u16,
    pub(crate) code: Code,
    /// What is wrong with this request, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// True if the request may have been carried out. Repeat only commits, releases and requests with an
    /// Idempotency-Key.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) indeterminate: bool,
    #[serde(skip)]
    retry_after: Option<Duration>,
    /// Whether a retry gets the same answer, although the status suggests otherwise.
    #[serde(skip)]
    pub(crate) is_final: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

impl Code {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::UserBlocked | Self::ModelNotAllowed => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::ReservationExpired | Self::UserForgotten => StatusCode::GONE,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Mismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::QuotaExceeded | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::QuotaUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "Invalid request",
            Self::Unauthenticated => "Not authenticated",
            Self::Forbidden => "Not allowed",
            Self::ModelNotAllowed => "Model not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Conflict => "Conflict",
            Self::ReservationExpired => "Reservation expired",
            Self::UserForgotten => "User forgotten",
            Self::UserBlocked => "User blocked",
            Self::PayloadTooLarge => "Request body too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::Mismatch => "Same key, other request",
            Self::QuotaExceeded => "Chat quota exceeded",
            Self::RateLimited => "Too many requests",
            Self::InternalError => "Internal error",
            Self::UpstreamFailed => "Upstream failed",
            Self::QuotaUnavailable => "Quota unavailable",
            Self::UpstreamTimeout => "Upstream timed out",
        }
    }

    /// Value of the member `type`.
    pub(crate) fn kind(self) -> String {
        format!("urn:quota-gate:problem:{}", self.title().to_lowercase().replace(", ", "-").replace(' ', "-"))
    }
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::bare(code) }
    }

    pub(crate) fn bare(code: Code) -> Self {
        Self {
            kind: code.kind(),
            title: code.title(),
            status: code.status().as_u16(),
            code,
            detail: None,
            indeterminate: false,
            retry_after: None,
            is_final: false,
        }
    }

    /// The upstream failed in a way that a retry does not change. Nothing was charged.
    pub(crate) fn upstream_unusable(detail: impl Into<String>) -> Self {
        Self { is_final: true, ..Self::new(Code::UpstreamFailed, detail) }
    }

    pub(crate) fn indeterminate(detail: impl Into<String>) -> Self {
        Self { indeterminate: true, ..Self::unavailable(detail) }
    }

    /// This client sends too many requests. Nothing was done.
    pub(crate) fn rate_limited(wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(Code::RateLimited, "too many requests; try again after a moment") }
    }

    /// This user has as many quota streams as one user may have.
    pub(crate) fn too_many_streams(max: usize) -> Self {
        let detail = format!("this user has {max} quota streams open: close one, or poll the quota instead");
        Self { retry_after: Some(STREAM_RETRY), ..Self::new(Code::RateLimited, detail) }
    }

    /// Too many requests are in progress.
    pub(crate) fn shed() -> Self {
        metrics::counter!("quota_gate_shed_requests_total").increment(1);
        Self::unavailable("too many requests are in progress; try again")
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(Code::QuotaUnavailable, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code.status(), Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

pub(crate) fn is_unauthenticated(response: &Response) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
}

pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl From<GateError> for Problem {
    fn from(error: GateError) -> Self {
        let detail = error.to_string();
        match error {
            GateError::Invalid(_) => Self::new(Code::InvalidRequest, detail),
            GateError::UnknownReservation
            | GateError::OtherMeter(_)
            | GateError::UnknownGrant
            | GateError::UnknownCharge => Self::new(Code::NotFound, detail),
            GateError::ReservationExpired(_) => Self::new(Code::ReservationExpired, detail),
            GateError::AlreadySettled(_)
            | GateError::LevelChanged
            | GateError::TooManyHolds(_)
            | GateError::TooManyGrants(_)
            | GateError::NotTransferable(_) => Self::new(Code::Conflict, detail),
            GateError::Mismatch(_) => Self::new(Code::Mismatch, detail),
            GateError::Forgotten => Self::new(Code::UserForgotten, detail),
            GateError::Blocked => Self::new(Code::UserBlocked, detail),
            GateError::RedisAway { .. } => {
                tracing::warn!(error = detail, "no decision");
                Self::unavailable("the quota cannot be checked now; nothing was charged, try again")
            }
            // The log has the error already, once.
            GateError::OtherRedis { .. } => Self::unavailable(
                "this gate does not serve, because other gates use another Redis; nothing was charged, use another gate",
            ),
            GateError::Unavailable { retry_after, .. } => {
                tracing::warn!(error = detail, "no decision");
                let detail = "the quota cannot be checked now; nothing was charged, try again";
                Self { retry_after: Some(retry_after), ..Self::new(Code::QuotaUnavailable, detail) }
            }
            GateError::Indeterminate { .. } => {
                tracing::error!(error = detail, "the outcome of a request is unknown");
                Self::indeterminate("the answer was lost: the request may or may not have been carried out")
            }
        }
    }
}

impl From<InvalidInput> for Problem {
    fn from(error: InvalidInput) -> Self {
        Self::new(Code::InvalidRequest, error.to_string())
    }
}

pub(crate) fn no_such_route(uri: &Uri) -> Problem {
    Problem::new(Code::NotFound, format!("no such route: {}", uri.path()))
}

pub(crate) async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not support {method}", uri.path()))
}

pub(crate) fn panicked(_: &(dyn Any + Send)) -> Problem {
    tracing::error!("a handler panicked");
    let problem = Problem::new(Code::InternalError, "the gate failed to handle this request");
    Problem { indeterminate: true, ..problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota_gate::domain::ap::Ap;

    #[test]
    fn every_gate_error_has_its_status_and_code() {
        let unavailable = GateError::Unavailable { reason: "x".into(), retry_after: Duration::from_secs(5) };
        let cases = [
            (GateError::Invalid(InvalidInput { field: "ap", rule: "no".into() }), 400, Code::InvalidRequest),
            (GateError::UnknownReservation, 404, Code::NotFound),
            (GateError::OtherMeter("image".into()), 404, Code::NotFound),
            (GateError::UnknownGrant, 404, Code::NotFound),
            (GateError::UnknownCharge, 404, Code::NotFound),
            (GateError::TooManyGrants(32), 409, Code::Conflict),
            (GateError::NotTransferable(Ap::new(7)), 409, Code::Conflict),
            (GateError::ReservationExpired("x"), 410, Code::ReservationExpired),
            (GateError::AlreadySettled("x"), 409, Code::Conflict),
            (GateError::LevelChanged, 409, Code::Conflict),
            (GateError::TooManyHolds(64), 409, Code::Conflict),
            (GateError::Mismatch("x"), 422, Code::Mismatch),
            (GateError::Forgotten, 410, Code::UserForgotten),
            (GateError::Blocked, 403, Code::UserBlocked),
            (unavailable, 503, Code::QuotaUnavailable),
            (GateError::RedisAway { reason: "x".into() }, 503, Code::QuotaUnavailable),
            (GateError::OtherRedis { mine: "x".into(), theirs: "y".into() }, 503, Code::QuotaUnavailable),
            (GateError::Indeterminate { reason: "x".into() }, 503, Code::QuotaUnavailable),
        ];
        for (error, status, code) in cases {
            let problem = Problem::from(error);
            assert_eq!((problem.status, problem.code), (status, code));
        }
    }

    #[test]
    fn only_a_lost_answer_is_indeterminate_and_unavailable_has_retry_after() {
        let lost = Problem::from(GateError::Indeterminate { reason: "secret host".into() });
        assert!(lost.indeterminate && !lost.detail.as_ref().unwrap().contains("secret host"));
        let away = Problem::from(GateError::Unavailable { reason: "x".into(), retry_after: Duration::from_secs(5) });
        assert!(!away.indeterminate);
        assert_eq!(away.into_response().headers()[header::RETRY_AFTER], "5");
    }

    #[test]
    fn type_is_the_title_as_a_urn() {
        assert_eq!(Code::QuotaExceeded.kind(), "urn:quota-gate:problem:chat-quota-exceeded");
        assert_eq!(Code::Mismatch.kind(), "urn:quota-gate:problem:same-key-other-request");
    }
}
