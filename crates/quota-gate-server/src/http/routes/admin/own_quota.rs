//! `PUT /api/admin/users/{user}/quota`, `…/block`: gives a user a quota of the user's own; blocks and unblocks.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::routes::admin::{fresh, level::StandingBody, require_user};
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedBody, UnknownUser},
    },
    auth::Admin,
    extract::{Body, PathUser},
};
use quota_gate::{
    audit::verify::Verifier,
    domain::{
        author::Author,
        decision::UserChanged,
        own_quota::{OwnQuota, UserChange},
        user_id::UserId,
    },
    gate::{ChangeUser, Gate},
};

/// A quota of a user's own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OwnQuotaBody {
    /// AP per period, `unlimited`, or null for the quota of the level.
    #[serde(deserialize_with = "required")]
    #[schema(required = true)]
    quota: Option<OwnQuotaValue>,
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Only previews the change; the reason may then be anything.
    #[serde(default)]
    preview: bool,
    /// `levelVersion` of the preview: the change is refused if the user was changed since.
    if_level_version: Option<u32>,
}

/// A number of AP, or a word.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum OwnQuotaValue {
    Ap(i64),
    Word(OwnQuotaWord),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OwnQuotaWord {
    Unlimited,
}

/// A block.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BlockBody {
    /// Whether new messages of the user are refused.
    blocked: bool,
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Only previews the change; the reason may then be anything.
    #[serde(default)]
    preview: bool,
    /// `levelVersion` of the preview: the change is refused if the user was changed since.
    if_level_version: Option<u32>,
}

/// What both changes have in common.
struct How {
    reason: String,
    preview: bool,
    if_level_version: Option<u32>,
}

/// Effect of a change.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserChangeBody<'a> {
    /// True if nothing was changed.
    preview: bool,
    before: StandingBody<'a>,
    after: StandingBody<'a>,
    /// Number of the user's changes of level, own quota and block, including this one if it was made.
    level_version: u32,
}

/// Gives a user a quota of the user's own, or the quota of the level again. It stays over resets and changes of level.
#[utoipa::path(
    put, path = "/api/admin/users/{user}/quota", tag = "admin", operation_id = "changeUserQuota",
    params(("user" = String, Path, description = "The user's id")),
    request_body = OwnQuotaBody,
    responses(
        (status = 200, description = "Effect of the change", body = UserChangeBody<'_>),
        UnknownUser,
        (status = 409, description = "CONFLICT: the user has changed since the preview", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn quota(
    Admin(by): Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    PathUser(user): PathUser,
    Body(body): Body<OwnQuotaBody>,
) -> Result<Response, Problem> {
    let quota = match body.quota {
        None => None,
        Some(OwnQuotaValue::Ap(ap)) => Some(OwnQuota::new(ap)?),
        Some(OwnQuotaValue::Word(OwnQuotaWord::Unlimited)) => Some(OwnQuota::UNLIMITED),
    };
    let how = How { reason: body.reason, preview: body.preview, if_level_version: body.if_level_version };
    change((&by, user), UserChange { quota: Some(quota), blocked: None }, how, &gate, &verifier).await
}

/// Blocks a user: new messages are refused, holds can still be settled. Or ends the block.
#[utoipa::path(
    put, path = "/api/admin/users/{user}/block", tag = "admin", operation_id = "blockUser",
    params(("user" = String, Path, description = "The user's id")),
    request_body = BlockBody,
    responses(
        (status = 200, description = "Effect of the change", body = UserChangeBody<'_>),
        UnknownUser,
        (status = 409, description = "CONFLICT: the user has changed since the preview", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn block(
    Admin(by): Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    PathUser(user): PathUser,
    Body(body): Body<BlockBody>,
) -> Result<Response, Problem> {
    let how = How { reason: body.reason, preview: body.preview, if_level_version: body.if_level_version };
    change((&by, user), UserChange { quota: None, blocked: Some(body.blocked) }, how, &gate, &verifier).await
}

async fn change(
    (by, user): (&str, UserId),
    change: UserChange,
    how: How,
    gate: &Gate,
    verifier: &Verifier,
) -> Result<Response, Problem> {
    let reason = if how.preview { "preview" } else { &how.reason };
    let author = Author::person(by, reason)?;
    let request = ChangeUser { user, change, if_version: how.if_level_version, author };
    require_user(&verifier.postgres, &request.user).await?;
    let changed = if how.preview { gate.preview_user(&request).await? } else { gate.change_user(request).await? };
    let levels = gate.levels();
    let UserChanged { before, after, pending, level_version } = &changed;
    Ok(fresh(UserChangeBody {
        preview: how.preview,
        before: StandingBody::new(&levels, before, *pending),
        after: StandingBody::new(&levels, after, *pending),
        level_version: *level_version,
    }))
}

/// A member that may be null, but must be there.
fn required<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<OwnQuotaValue>, D::Error> {
    Option::deserialize(deserializer)
}
