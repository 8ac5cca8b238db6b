//! `GET /api/admin/changes`: who changed what, and why.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::routes::admin::{fresh, month, page::Page, unavailable};
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedParams},
        time::Millis,
    },
    auth::Admin,
    extract::Params,
};
use quota_gate::{
    audit::verify::Verifier,
    domain::user_id::UserId,
    store::postgres::{Change, Place},
};

/// Selects changes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangesParams {
    /// Only changes of this user; without it, also those of the rollout.
    user: Option<String>,
    /// `next` of the previous page.
    after: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Changes, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangesBody {
    changes: Vec<ChangeBody>,
    /// `after` for the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// A change. Members of other kinds are null.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ChangeBody {
    at: String,
    /// Id of the token, or the command.
    by: String,
    /// Empty if a program gave none.
    reason: String,
    /// `level`, `quota`, `blocked`, `unblocked`, `hold_released`, `granted`, `grant_voided`, `forgotten` or `rollout`.
    kind: String,
    #[schema(required = true)]
    user_uuid: Option<String>,
    #[schema(required = true)]
    level_before: Option<String>,
    #[schema(required = true)]
    level_after: Option<String>,
    /// Anchor day before the change, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor_before: Option<i16>,
    /// Anchor day after the change, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor_after: Option<i16>,
    /// First period of the new level, if it is not the period of the change.
    #[schema(required = true)]
    effective_period: Option<String>,
    /// The released hold.
    #[schema(required = true)]
    hold: Option<String>,
    /// The grant that was given or voided.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    #[schema(required = true)]
    ap: Option<i32>,
    /// Only of the kind `quota`: the user's own quota before; absent for that of the level.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_before: Option<i32>,
    /// The user's own quota after.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_after: Option<i32>,
    /// Mode of the rollout.
    #[schema(required = true)]
    mode: Option<String>,
    #[schema(required = true)]
    percentage: Option<f64>,
}

/// Lists changes: who changed what, and why.
#[utoipa::path(
    get, path = "/api/admin/changes", tag = "admin", operation_id = "listChanges",
    params(ChangesParams),
    responses(
        (status = 200, description = "A page", body = ChangesBody),
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    _: Admin,
    State(verifier): State<Arc<Verifier>>,
    Params(params): Params<ChangesParams>,
) -> Result<Response, Problem> {
    let page = Page::new(params.limit, params.after.as_deref(), read_cursor)?;
    let user = params.user.as_deref().map(UserId::parse).transpose()?;
    let found = verifier.postgres.changes(user.as_ref(), page.after, page.query_limit()).await.map_err(unavailable)?;
    let (changes, next) = page.cut(found, |change| cursor(change.place));
    Ok(fresh(ChangesBody { changes: changes.into_iter().map(ChangeBody::from).collect(), next }))
}

fn cursor(Place { at, source, id }: Place) -> String {
    format!("{}_{source}_{id}", at.timestamp_micros())
}

fn read_cursor(text: &str) -> Option<Place> {
    let mut parts = text.split('_');
    let at = DateTime::from_timestamp_micros(parts.next()?.parse().ok()?)?;
    Some(Place { at, source: parts.next()?.parse().ok()?, id: parts.next()?.parse().ok()? })
}

impl From<Change> for ChangeBody {
    fn from(change: Change) -> Self {
        Self {
            at: Millis(change.place.at).to_string(),
            by: change.by,
            reason: change.reason,
            kind: change.kind,
            user_uuid: change.user,
            level_before: change.level_before,
            level_after: change.level_after,
            anchor_before: change.anchor_before,
            anchor_after: change.anchor_after,
            effective_period: change.effective_period.map(month),
            hold: change.hold.map(|hold| hold.to_string()),
            grant: change.grant.map(|grant| grant.to_string()),
            ap: change.ap,
            quota_before: change.quota_before,
            quota_after: change.quota_after,
            mode: change.mode,
            percentage: change.percentage,
        }
    }
}
