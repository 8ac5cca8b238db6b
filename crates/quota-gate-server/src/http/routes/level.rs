//! `PUT /api/chat/quota/level`, alias `…/membership`: changes a user's level.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::answers::quota::{QuotaBody, level_name};
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedBody},
        time::Seconds,
    },
    auth::Admin,
    extract::Body,
};
use quota_gate::{
    domain::{author::Author, calendar::AnchorDay, level::LevelName, level_change::Effective, user_id::UserId},
    gate::{ChangeLevel, Gate},
};

/// A change of level.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SetLevelBody {
    #[schema(pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    user_uuid: String,
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
    reason: Option<String>,
}

/// When a change applies. `now`: immediately, also a downgrade.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EffectiveWord {
    Now,
}

impl EffectiveWord {
    pub(crate) fn effective(word: Option<Self>) -> Effective {
        match word {
            Some(Self::Now) => Effective::Now,
            None => Effective::Fair,
        }
    }
}

/// Result of a change of level.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LevelSetBody<'a> {
    #[schema(example = "basic")]
    previous_level: &'a str,
    /// Level from the next period, and its start; null if the change applied immediately.
    #[schema(required = true)]
    pending: Option<PendingLevelBody<'a>>,
    /// Number of the user's changes of level.
    level_version: u32,
    quota: QuotaBody<'a>,
}

/// A level that applies later.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingLevelBody<'a> {
    membership_level: &'a str,
    #[schema(value_type = String)]
    effective_at: Seconds,
}

/// Changes a user's level. Used AP stays used.
///
/// `PUT /api/chat/quota/membership` is an older alias.
#[utoipa::path(
    put, path = "/api/chat/quota/level", tag = "levels", operation_id = "changeLevel",
    request_body = SetLevelBody,
    responses(
        (status = 200, description = "Changed", body = LevelSetBody<'_>),
        Refused,
        RefusedBody,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn change(
    Admin(by): Admin,
    State(gate): State<Gate>,
    Body(body): Body<SetLevelBody>,
) -> Result<Response, Problem> {
    let request = ChangeLevel {
        user: UserId::parse(&body.user_uuid)?,
        level: LevelName::parse(&body.membership_level)?,
        effective: EffectiveWord::effective(body.effective),
        anchor_day: body.anchor_day.map(AnchorDay::new).transpose()?,
        if_version: None,
        author: Author::program(&by, body.reason.as_deref())?,
    };
    let changed = gate.change_level(request).await?;
    let levels = gate.levels();
    let body = LevelSetBody {
        previous_level: level_name(&levels, changed.previous),
        pending: changed.pending.map(|code| PendingLevelBody {
            membership_level: level_name(&levels, code),
            effective_at: Seconds(gate.calendar().period_end(changed.quota.period, changed.quota.anchor_day)),
        }),
        level_version: changed.level_version,
        quota: QuotaBody::new(&gate, &levels, &changed.quota),
    };
    Ok(Json(body).into_response())
}
