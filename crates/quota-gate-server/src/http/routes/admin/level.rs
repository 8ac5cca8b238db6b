//! `PUT /api/admin/users/{user}/level`: previews or makes a change of level.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::routes::admin::{fresh, require_user};
use crate::http::{
    answers::{
        problem::{Problem, is_false},
        quota::{StatusWord, level_name},
        refusals::{Refused, RefusedBody, UnknownUser},
        time::Seconds,
    },
    auth::Admin,
    extract::{Body, PathUser},
    routes::level::EffectiveWord,
};
use quota_gate::{
    audit::verify::Verifier,
    domain::{
        author::Author,
        calendar::AnchorDay,
        decision::LevelPreview,
        level::{LevelCode, LevelName, Levels},
        quota::Quota,
    },
    gate::{ChangeLevel, Gate},
};

/// A change of level by a person.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChangeLevelBody {
    #[schema(example = "plus")]
    membership_level: String,
    /// By default, upgrades apply immediately and downgrades at the next period.
    effective: Option<EffectiveWord>,
    /// Day of the month on which the user's periods begin from now on; in a shorter month the last day. The current
    /// period then has 28 to 59 days. By default, it stays as it is.
    #[schema(minimum = 1, maximum = 31)]
    anchor_day: Option<u8>,
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Only previews the change; the reason may then be anything.
    #[serde(default)]
    preview: bool,
    /// `levelVersion` of the preview: the change is refused if the level has changed since.
    if_level_version: Option<u32>,
}

/// Effect of a change of level.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LevelForecastBody<'a> {
    /// True if nothing was changed.
    preview: bool,
    before: StandingBody<'a>,
    after: StandingBody<'a>,
    /// When the level changes; null if immediately.
    #[schema(value_type = Option<String>, required = true)]
    effective_at: Option<Seconds>,
    /// Number of the user's changes of level, including this one if it was made.
    level_version: u32,
}

/// Level and quota of a user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StandingBody<'a> {
    membership_level: &'a str,
    /// Level from the next period.
    #[schema(required = true)]
    pending_level: Option<&'a str>,
    monthly_quota: u32,
    /// True if the quota is the user's own; absent if it is that of the level.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    own_quota: bool,
    /// True if new messages are refused; else absent.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    blocked: bool,
    monthly_used: u32,
    held: u32,
    remaining: u32,
    status: StatusWord,
}

/// Changes a user's level, or previews the change. Used AP stays used.
#[utoipa::path(
    put, path = "/api/admin/users/{user}/level", tag = "admin", operation_id = "changeUserLevel",
    params(("user" = String, Path, description = "The user's id")),
    request_body = ChangeLevelBody,
    responses(
        (status = 200, description = "Effect of the change", body = LevelForecastBody<'_>),
        UnknownUser,
        (status = 409, description = "CONFLICT: the level has changed since the preview", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn change(
    Admin(by): Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    PathUser(user): PathUser,
    Body(body): Body<ChangeLevelBody>,
) -> Result<Response, Problem> {
    let reason = if body.preview { "preview" } else { &body.reason };
    let request = ChangeLevel {
        user,
        level: LevelName::parse(&body.membership_level)?,
        effective: EffectiveWord::effective(body.effective),
        anchor_day: body.anchor_day.map(AnchorDay::new).transpose()?,
        if_version: body.if_level_version,
        author: Author::person(&by, reason)?,
    };
    require_user(&verifier.postgres, &request.user).await?;
    let mut forecast = gate.preview_level(&request).await?;
    if !body.preview {
        // Guarantees that the reported `before` is correct.
        let request =
            ChangeLevel { if_version: Some(body.if_level_version.unwrap_or(forecast.level_version)), ..request };
        let changed = gate.change_level(request).await?;
        (forecast.after, forecast.level_version) = (changed.quota, changed.level_version);
    }
    Ok(fresh(LevelForecastBody::new(&gate, &gate.levels(), &forecast, body.preview)))
}

impl<'a> LevelForecastBody<'a> {
    fn new(gate: &Gate, levels: &'a Levels, forecast: &LevelPreview, preview: bool) -> Self {
        let LevelPreview { before, pending_before, after, pending, level_version } = forecast;
        Self {
            preview,
            before: StandingBody::new(levels, before, *pending_before),
            after: StandingBody::new(levels, after, *pending),
            effective_at: pending.map(|_| Seconds(gate.calendar().period_end(after.period, after.anchor_day))),
            level_version: *level_version,
        }
    }
}

impl<'a> StandingBody<'a> {
    pub(super) fn new(levels: &'a Levels, quota: &Quota, pending: Option<LevelCode>) -> Self {
        Self {
            membership_level: level_name(levels, quota.level),
            pending_level: pending.map(|code| level_name(levels, code)),
            monthly_quota: quota.quota.get(),
            own_quota: quota.own_quota,
            blocked: quota.blocked,
            monthly_used: quota.used.get(),
            held: quota.held.get(),
            remaining: quota.remaining().get(),
            status: quota.status().into(),
        }
    }
}
