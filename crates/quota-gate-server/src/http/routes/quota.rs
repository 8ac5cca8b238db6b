//! `GET /api/chat/quota`: a user's quota.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use quota_gate::{domain::model_costs::ModelCosts, gate::Gate};

use crate::http::{
    answers::{
        headers::rate_limit,
        problem::Problem,
        quota::QuotaBody,
        refusals::{Refused, RefusedParams},
    },
    auth::Caller,
    meter::MeterSettings,
};
use crate::reloadable::Reloadable;

/// Returns the quota of the user of the JWT or, for a chat service, of the user in `X-User-Id`.
#[utoipa::path(
    get, path = "/api/chat/quota", tag = "quota", operation_id = "getQuota",
    params(("X-User-Id" = Option<String>, Header, description = "The user; required for services")),
    responses(
        (status = 200, description = "The quota", body = QuotaBody<'_>),
        Refused,
        RefusedParams,
    ),
    security(("user" = []), ("service" = [])),
)]
pub(crate) async fn quota(
    State(gate): State<Gate>,
    State(costs): State<Reloadable<ModelCosts>>,
    State(meter): State<Arc<MeterSettings>>,
    Caller(user): Caller,
) -> Result<Response, Problem> {
    let quota = gate.quota(&user).await?;
    let headers = rate_limit(&quota, gate.calendar());
    let levels = gate.levels();
    let body = QuotaBody::new(&gate, &levels, &quota).with_fallback(&costs.get(), &quota).with_unit(&meter);
    Ok(([(header::CACHE_CONTROL, "no-store")], headers, Json(body)).into_response())
}
