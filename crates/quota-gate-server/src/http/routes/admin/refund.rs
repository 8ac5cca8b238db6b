//! `POST /api/admin/users/{user}/messages/{usage}/refund`: gives back what a message has cost, as a grant.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::routes::admin::fresh;
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedBody},
    },
    auth::Admin,
    extract::{Body, PathUserAndCharge},
    routes::grants::GrantDoneBody,
};
use quota_gate::{
    domain::{author::Author, new_grant::NewGrant},
    gate::Gate,
};

/// A refund of a charge.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefundBody {
    /// AP to give back; by default all that the message has cost.
    #[schema(minimum = 1)]
    ap: Option<i64>,
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Refunds a message: the user gets a grant, once for each message. The message stays in the log.
#[utoipa::path(
    post, path = "/api/admin/users/{user}/messages/{usage}/refund", tag = "admin", operation_id = "refundMessage",
    params(("user" = String, Path, description = "The user's id"), ("usage" = String, Path, description = "`usageId` of the message")),
    request_body = RefundBody,
    responses(
        (status = 201, description = "Refunded", body = GrantDoneBody<'_>),
        (status = 200, description = "Refunded before, by the same request", body = GrantDoneBody<'_>),
        (status = 404, description = "NOT_FOUND: the log has no such message of this user (yet)", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "CONFLICT: the user has 32 live grants", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "MISMATCH: another part of the message was refunded before", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn refund(
    Admin(by): Admin,
    State(gate): State<Gate>,
    PathUserAndCharge(user, charge): PathUserAndCharge,
    Body(body): Body<RefundBody>,
) -> Result<Response, Problem> {
    let author = Author::person(&by, &body.reason)?;
    let ap = body.ap.map(NewGrant::ap).transpose()?;
    let given = gate.refund_charge(&user, charge, ap, &author).await?;
    let status = if given.replayed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, fresh(GrantDoneBody::of(&given, gate.now()))).into_response())
}
