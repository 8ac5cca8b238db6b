//! `/api/chat/quota/authorize`: for gateways that ask before they pass a request on (nginx `auth_request`, Traefik's `ForwardAuth`,
//! Caddy's `forward_auth`). The answer is its status and its headers; docs/gateways.md has configurations.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::http::answers::quota::{QuotaExceeded, rfc3339};
use crate::http::{
    AppState,
    answers::{
        headers::rate_limit,
        problem::{Code, Problem},
        refusals::Refused,
    },
    auth::Sender,
    state::Readiness,
};
use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, Denied},
        hold::{Reservation, Ttl},
        model_costs::ModelCosts,
        model_name::ModelName,
        quota::Quota,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    gate::{Consume, Gate, Reserve},
};

/// What the gateway's configuration asks for. It belongs into the URL, where no client can change it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuthorizeParams {
    /// What the message costs; what `model` costs when not given.
    #[param(minimum = 1, maximum = 1_000_000)]
    ap: Option<i64>,
    /// The model, for its cost in `[models]`, and for the usage log; the default cost when not given.
    #[param(min_length = 1, max_length = 128)]
    model: Option<String>,
    /// The conversation.
    #[param(min_length = 1, max_length = 128)]
    session: Option<String>,
    /// When the message is charged.
    #[serde(default)]
    #[param(inline)]
    settle: SettleWord,
    /// How long to hold its AP; 60 when not given.
    #[param(minimum = 1, maximum = 900)]
    ttl_seconds: Option<i64>,
    /// The status of a denial: 429, or 403 for nginx, which passes on nothing else. 429 when not given.
    denied: Option<u16>,
}

/// When a message is charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SettleWord {
    /// When the service behind the gateway commits the reservation; never, if it does not or releases it.
    #[default]
    Callback,
    /// When the reservation expires, unless the service has released it.
    Expiry,
    /// Now.
    Now,
}

/// What a gateway is answered, described once for the contract.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described, never made")]
#[expect(clippy::doc_markdown, reason = "the text is the description in the contract")]
pub(crate) enum Authorized {
    /// It may: X-Quota-User, X-Quota-Remaining, and X-Quota-Reservation where something is held
    #[response(status = 200)]
    Passes,
    /// INVALID_REQUEST
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// CONFLICT: too many live reservations
    #[response(status = 409, content_type = "application/problem+json")]
    TooMany(Problem),
    /// QUOTA_EXCEEDED, with X-Quota-Required, X-Quota-Remaining and X-Quota-Reset-At; 403 with `denied=403`
    #[response(status = 429, content_type = "application/problem+json")]
    Exceeded(QuotaExceeded),
}

/// May this request pass? Holds or charges what it costs, as POST does: gateways ask in either way.
#[utoipa::path(
    get, path = "/api/chat/quota/authorize", tag = "messages", operation_id = "authorizeByGet",
    params(AuthorizeParams, ("X-User-Id" = Option<String>, Header, description = "The user, when a service asks")),
    responses(Authorized, Refused),
    security(("user" = []), ("service" = [])),
)]
#[expect(dead_code, reason = "it describes the other way to ask")]
pub(crate) const fn authorize_by_get() {}

/// May this request pass? Holds or charges what it costs.
#[utoipa::path(
    post, path = "/api/chat/quota/authorize", tag = "messages", operation_id = "authorize",
    params(AuthorizeParams, ("X-User-Id" = Option<String>, Header, description = "The user, when a service asks")),
    responses(Authorized, Refused),
    security(("user" = []), ("service" = [])),
)]
pub(crate) async fn authorize(
    State(state): State<AppState>,
    State(gate): State<Gate>,
    State(costs): State<Arc<ModelCosts>>,
    State(readiness): State<Arc<Readiness>>,
    Sender(user): Sender,
    params: Result<Query<AuthorizeParams>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params.map_err(|error| Problem::new(Code::InvalidRequest, error.body_text()))?;
    let denied_status = match params.denied.unwrap_or(429) {
        429 => StatusCode::TOO_MANY_REQUESTS,
        403 => StatusCode::FORBIDDEN,
        _ => return Err(Problem::new(Code::InvalidRequest, "denied is 429 or 403")),
    };
    let session = params.session.as_deref().map_or_else(|| Ok(SessionId::unnamed()), SessionId::parse)?;
    let ap = match params.ap {
        Some(ap) => Ap::cost(ap)?,
        None => costs.of(params.model.as_deref().unwrap_or_default()),
    };
    let model = params.model.as_deref().map(ModelName::parse).transpose()?;
    let ttl = params.ttl_seconds.map_or(Ok(Ttl::DEFAULT), Ttl::from_seconds)?;
    let decision = match params.settle {
        SettleWord::Now => {
            let (model, tokens) = (model.clone(), Tokens::ZERO);
            let message = Consume { user: user.clone(), session, ap, tokens, model, idempotency_key: None };
            map(gate.consume(message).await?, |charged| (charged.quota, None))
        }
        SettleWord::Callback | SettleWord::Expiry => {
            let message = Reserve { user: user.clone(), session, ap, ttl, idempotency_key: None };
            map(gate.reserve(message).await?, |reserved| (reserved.quota, Some(reserved.reservation)))
        }
    };
    Ok(match decision {
        Decision::Allowed((quota, reservation)) => {
            if let (Some(reservation), SettleWord::Expiry) = (&reservation, params.settle) {
                state.expiring().charge_at_expiry(&gate, reservation, model, ttl, readiness.stopping.clone());
            }
            allowed(&gate, &user, Some(&quota), reservation.as_ref())
        }
        Decision::Passed(passed) => allowed(&gate, &user, passed.quota(), None),
        Decision::Denied(denied) => refused(&gate, &denied, denied_status),
    })
}

fn map<A, B>(decision: Decision<A>, of: impl FnOnce(A) -> B) -> Decision<B> {
    match decision {
        Decision::Allowed(allowed) => Decision::Allowed(of(allowed)),
        Decision::Denied(denied) => Decision::Denied(denied),
        Decision::Passed(passed) => Decision::Passed(passed),
    }
}

fn allowed(gate: &Gate, user: &UserId, quota: Option<&Quota>, reservation: Option<&Reservation>) -> Response {
    let mut headers = quota.map_or_else(HeaderMap::new, |quota| rate_limit(quota, gate.calendar()));
    put(&mut headers, "x-quota-user", user.as_str());
    if let Some(quota) = quota {
        put(&mut headers, "x-quota-remaining", &quota.remaining().get().to_string());
    }
    if let Some(reservation) = reservation {
        put(&mut headers, "x-quota-reservation", &gate.reservation_id(reservation));
    }
    put(&mut headers, header::CACHE_CONTROL.as_str(), "no-store");
    (StatusCode::OK, headers).into_response()
}

fn refused(gate: &Gate, denied: &Denied, status: StatusCode) -> Response {
    let mut response = QuotaExceeded::response(gate, denied);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    put(headers, "x-quota-code", "QUOTA_EXCEEDED");
    put(headers, "x-quota-required", &denied.required.get().to_string());
    put(headers, "x-quota-remaining", &denied.quota.remaining().get().to_string());
    put(headers, "x-quota-reset-at", &rfc3339(gate.calendar().period_end(denied.quota.period)));
    response
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}
