//! `/api/chat/quota/authorize`: forward auth for gateways (nginx `auth_request`, Traefik's `ForwardAuth`, Caddy's
//! `forward_auth`). The answer consists of status and headers; docs/gateways.md has configurations.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::http::{
    AppState,
    answers::{
        headers::rate_limit,
        problem::{Code, Problem},
        quota::QuotaExceeded,
        refusals::Refused,
        remedies::{RemedyBody, Shop},
        time::Seconds,
    },
    auth::Sender,
    model_access::require_allowed,
    state::Readiness,
};
use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, Denied},
        hold::{Reservation, Ttl},
        model_name::ModelName,
        quota::Quota,
        remedy::Asked,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    gate::{Consume, Gate, Reserve},
};

/// Parameters from the gateway's configuration. They belong in the URL, where clients cannot change them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuthorizeParams {
    /// Cost of the message in AP; by default the cost of `model`, estimated if it has prices by tokens.
    #[param(minimum = 1, maximum = 1_000_000)]
    ap: Option<i64>,
    /// Model, for its cost in `[models]` and the usage log; without it, the default cost applies.
    #[param(min_length = 1, max_length = 128)]
    model: Option<String>,
    /// Id of the conversation.
    #[param(min_length = 1, max_length = 128)]
    session: Option<String>,
    /// When to charge the message.
    #[serde(default)]
    #[param(inline)]
    settle: SettleWord,
    /// Time to hold the AP, in seconds; 60 by default.
    #[param(minimum = 1, maximum = 900)]
    ttl_seconds: Option<i64>,
    /// Status of a denial: 429, or 403 for nginx, which does not forward 429. 429 by default.
    denied: Option<u16>,
}

/// When a message is charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SettleWord {
    /// When the service behind the gateway commits the reservation; never without a commit.
    #[default]
    Callback,
    /// When the reservation expires, unless the service has released it.
    Expiry,
    /// Immediately.
    Now,
}

/// Answers to a gateway, described once for the contract.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes answers in the contract")]
#[expect(clippy::doc_markdown, reason = "the text becomes a description in the contract")]
pub(crate) enum Authorized {
    /// Allowed, with X-Quota-User, X-Quota-Remaining, and X-Quota-Reservation if AP is held
    #[response(status = 200)]
    Passes,
    /// INVALID_REQUEST
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// CONFLICT: too many live reservations
    #[response(status = 409, content_type = "application/problem+json")]
    TooMany(Problem),
    /// QUOTA_EXCEEDED, with X-Quota-Required, X-Quota-Remaining and X-Quota-Reset-At; status 403 with `denied=403`
    #[response(status = 429, content_type = "application/problem+json")]
    Exceeded(QuotaExceeded<'static>),
}

/// Authorizes a request, as POST does: gateways use either method.
#[utoipa::path(
    get, path = "/api/chat/quota/authorize", tag = "messages", operation_id = "authorizeByGet",
    params(AuthorizeParams, ("X-User-Id" = Option<String>, Header, description = "The user; required for services")),
    responses(Authorized, Refused),
    security(("user" = []), ("service" = [])),
)]
#[expect(dead_code, reason = "it only describes the other method in the contract")]
pub(crate) const fn authorize_by_get() {}

/// Authorizes a request: holds or charges its cost.
#[utoipa::path(
    post, path = "/api/chat/quota/authorize", tag = "messages", operation_id = "authorize",
    params(AuthorizeParams, ("X-User-Id" = Option<String>, Header, description = "The user; required for services")),
    responses(Authorized, Refused),
    security(("user" = []), ("service" = [])),
)]
pub(crate) async fn authorize(
    State(state): State<AppState>,
    State(gate): State<Gate>,
    State(shop): State<Shop>,
    State(readiness): State<Arc<Readiness>>,
    Sender(user): Sender,
    params: Result<Query<AuthorizeParams>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params.map_err(|error| Problem::new(Code::InvalidRequest, error.body_text()))?;
    let denied_status = match params.denied.unwrap_or(429) {
        429 => StatusCode::TOO_MANY_REQUESTS,
        403 => StatusCode::FORBIDDEN,
        _ => return Err(Problem::new(Code::InvalidRequest, "denied must be 429 or 403")),
    };
    let session = params.session.as_deref().map_or_else(|| Ok(SessionId::unnamed()), SessionId::parse)?;
    let costs = shop.costs().get();
    let (ap, tokens) = match params.ap {
        Some(ap) => (Ap::cost(ap)?, Tokens::ZERO),
        None => costs.unseen(params.model.as_deref())?,
    };
    let model = params.model.as_deref().map(ModelName::parse).transpose()?;
    require_allowed(&gate, &costs, &user, model.as_ref().map(ModelName::as_str)).await?;
    let ttl = params.ttl_seconds.map_or(Ok(Ttl::DEFAULT), Ttl::from_seconds)?;
    let decision = match params.settle {
        SettleWord::Now => {
            let model = model.clone();
            let message = Consume { user: user.clone(), session, ap, tokens, model, idempotency_key: None };
            map_allowed(gate.consume(message).await?, |charged| (charged.quota, None))
        }
        SettleWord::Callback | SettleWord::Expiry => {
            let message = Reserve { user: user.clone(), session, ap, ttl, idempotency_key: None };
            map_allowed(gate.reserve(message).await?, |reserved| (reserved.quota, Some(reserved.reservation)))
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
        Decision::Denied(denied) => {
            let priced_answers = params.ap.is_none().then_some(1);
            let asked = Asked { models: params.model.as_slice(), priced_answers };
            let remedies = shop.remedies(&gate, &denied, asked);
            denial((&gate, &denied), remedies, denied_status)
        }
    })
}

fn map_allowed<A, B>(decision: Decision<A>, convert: impl FnOnce(A) -> B) -> Decision<B> {
    match decision {
        Decision::Allowed(allowed) => Decision::Allowed(convert(allowed)),
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

fn denial((gate, denied): (&Gate, &Denied), remedies: Vec<RemedyBody>, status: StatusCode) -> Response {
    let mut response = QuotaExceeded::response(gate, denied, remedies);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    put(headers, "x-quota-code", "QUOTA_EXCEEDED");
    put(headers, "x-quota-required", &denied.required.get().to_string());
    put(headers, "x-quota-remaining", &denied.quota.available().get().to_string());
    if denied.quota.limits.binds()
        && let Some(at) = denied.retry_at(gate.calendar())
    {
        put(headers, "x-quota-retry-at", &Seconds::after(at).to_string());
    }
    put(
        headers,
        "x-quota-reset-at",
        &Seconds(gate.calendar().period_end(denied.quota.period, denied.quota.anchor_day)).to_string(),
    );
    response
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}
