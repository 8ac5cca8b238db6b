//! `POST /api/admin/users/{user}/holds/{hold}/release`: gives back held AP that will not be settled.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::routes::admin::{fresh, require_user};
use crate::http::{
    answers::{
        problem::Problem,
        quota::QuotaBody,
        refusals::{Refused, RefusedBody},
    },
    auth::Admin,
    extract::{Body, PathUserAndHold},
    routes::reservations::ReleasedBody,
};
use quota_gate::{audit::verify::Verifier, domain::author::Author, gate::Gate};

/// A release of a hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseHoldBody {
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Releases a hold. It cannot be committed any more.
#[utoipa::path(
    post, path = "/api/admin/users/{user}/holds/{hold}/release", tag = "admin", operation_id = "releaseHold",
    params(("user" = String, Path, description = "The user's id"), ("hold" = String, Path, description = "The hold's id")),
    request_body = ReleaseHoldBody,
    responses(
        (status = 200, description = "Released", body = ReleasedBody<'_>),
        (status = 404, description = "NOT_FOUND: no such user, or no such live hold", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "CONFLICT: the hold was committed meanwhile", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn release(
    Admin(by): Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    PathUserAndHold(user, hold): PathUserAndHold,
    Body(body): Body<ReleaseHoldBody>,
) -> Result<Response, Problem> {
    let author = Author::person(&by, &body.reason)?;
    require_user(&verifier.postgres, &user).await?;
    let released = gate.release_hold(&user, hold, &author).await?;
    let levels = gate.levels();
    Ok(fresh(ReleasedBody { replayed: released.replayed, quota: QuotaBody::new(&gate, &levels, &released.quota) }))
}
