//! `GET /api/admin/users`, `…/users/{user}`: finds users; shows one in Redis and in Postgres.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::routes::admin::{fresh, month, page::Page, require_user, unavailable};
use crate::http::{
    answers::{
        problem::Problem,
        quota::{QuotaBody, level_name},
        refusals::{Refused, RefusedParams, UnknownUser},
        time::{Millis, Seconds},
    },
    auth::Admin,
    extract::{Params, PathUser},
};
use quota_gate::{
    audit::verify::{Compared, Verifier},
    domain::{
        calendar::Period,
        level::{LevelName, Levels},
        quota::Quota,
        user_id::UserId,
    },
    gate::Gate,
    store::{postgres::ListedUser, redis::Hold},
};

/// Maximum closed months in the answer.
const MONTHS_SHOWN: u32 = 36;

/// Selects users.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsersParams {
    /// Prefix of the users' ids.
    #[serde(default)]
    #[param(max_length = 128)]
    prefix: String,
    /// Only users of this level.
    level: Option<String>,
    /// `next` of the previous page.
    #[serde(default)]
    after: String,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Users, ordered by id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsersBody {
    users: Vec<ListedUserBody>,
    /// `after` for the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// A user, according to Postgres.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedUserBody {
    user_uuid: String,
    membership_level: String,
    /// Level from the next period.
    #[schema(required = true)]
    pending_level: Option<String>,
    /// Quota of the current period; the row's quota if its period is over and it was not used since.
    monthly_quota: i32,
    /// AP charged in the current period, except in the last second.
    monthly_used: i64,
    total_used: i64,
    updated_at: String,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserBody<'a> {
    quota: QuotaBody<'a>,
    /// Level from the next period.
    #[schema(required = true)]
    pending_level: Option<&'a str>,
    /// Number of the user's changes of level.
    level_version: u32,
    /// Live holds; empty while Redis is unavailable.
    holds: Vec<HoldBody>,
    /// Redis and Postgres compared; null while one is unavailable.
    #[schema(required = true)]
    comparison: Option<ComparisonBody>,
    /// Closed months, newest first.
    months: Vec<MonthBody>,
    /// Quotas of other meters than the chat that the user has used or has grants of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    meters: Vec<QuotaBody<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HoldBody {
    id: String,
    ap: u32,
    period: String,
    expires_at: String,
}

/// Redis and Postgres at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ComparisonBody {
    /// Null if the user is not in Redis at the moment.
    #[schema(required = true)]
    redis: Option<SideBody>,
    postgres: SideBody,
    /// AP that is journaled but not in Postgres yet.
    unflushed: u64,
    /// Difference that `unflushed` does not explain, and its probable cause, or null.
    #[schema(required = true)]
    drift: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SideBody {
    period: String,
    monthly_used: u32,
    total_used: u64,
}

/// A closed month.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MonthBody {
    period: String,
    /// Level at its end.
    membership_level: String,
    monthly_quota: i32,
    used: i64,
    /// AP that the quota did not cover: never charged.
    overage: i64,
}

/// Finds users by the prefix of their ids.
#[utoipa::path(
    get, path = "/api/admin/users", tag = "admin", operation_id = "listUsers",
    params(UsersParams),
    responses(
        (status = 200, description = "A page", body = UsersBody),
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    _: Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    Params(params): Params<UsersParams>,
) -> Result<Response, Problem> {
    let after = Some(params.after.as_str()).filter(|after| !after.is_empty());
    let page = Page::new(params.limit, after, |text| UserId::parse(text).ok())?;
    let after = page.after.as_ref().map_or("", UserId::as_str);
    let prefix = params.prefix.as_str();
    if !prefix.is_empty() {
        UserId::parse(prefix)?;
    }
    let level = params.level.as_deref().filter(|level| !level.is_empty());
    level.map(LevelName::parse).transpose()?;
    let found = verifier.postgres.list_users(prefix, level, after, page.query_limit()).await.map_err(unavailable)?;
    let (users, next) = page.cut(found, |user| user.user.clone());
    let current = gate.calendar().month_at(gate.now());
    let users = users.into_iter().map(|user| ListedUserBody::new(user, current)).collect();
    Ok(fresh(UsersBody { users, next }))
}

/// Returns a user's quota, live holds and closed months, and compares Redis with Postgres.
#[utoipa::path(
    get, path = "/api/admin/users/{user}", tag = "admin", operation_id = "showUser",
    params(("user" = String, Path, description = "The user's id")),
    responses(
        (status = 200, description = "The user", body = UserBody<'_>),
        UnknownUser,
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn show(
    _: Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    PathUser(user): PathUser,
) -> Result<Response, Problem> {
    require_user(&verifier.postgres, &user).await?;
    let (quota, holds) = match gate.quota_and_holds(&user).await {
        Ok(both) => both,
        Err(_) => (gate.quota(&user).await?, Vec::new()),
    };
    let compared = verifier.compare_user(&user).await;
    let compared = compared.inspect_err(|error| tracing::debug!(%error, "cannot compare a user")).ok().flatten();
    let (pending, level_version) = match &compared {
        Some(Compared { row, .. }) => (row.pending, row.level_version),
        None => (None, 0),
    };
    let months = verifier.postgres.closed_months(&user, MONTHS_SHOWN).await.map_err(unavailable)?;
    let levels = gate.levels();
    let of_meters = of_meters(&gate, &levels, &user).await?;
    let body = UserBody {
        meters: of_meters.iter().map(|(gate, quota)| QuotaBody::new(gate, &levels, quota)).collect(),
        quota: QuotaBody::new(&gate, &levels, &quota),
        pending_level: pending.map(|code| level_name(&levels, code)),
        level_version,
        holds: holds.iter().map(HoldBody::new).collect(),
        comparison: compared.as_ref().map(ComparisonBody::new),
        months: months
            .into_iter()
            .map(|month| MonthBody {
                period: month.period.to_string(),
                membership_level: month.level,
                monthly_quota: month.quota,
                used: month.used,
                overage: month.overage,
            })
            .collect(),
    };
    Ok(fresh(body))
}

/// The quotas of other meters that the user has used or has grants of.
async fn of_meters(gate: &Gate, levels: &Levels, user: &UserId) -> Result<Vec<(Gate, Quota)>, Problem> {
    let today = gate.calendar().day_start(gate.calendar().day_at(gate.now()));
    let mut found = Vec::new();
    for meter in levels.meters() {
        let row = gate.postgres().find_meter(user, meter.code, today).await.map_err(unavailable)?;
        if row.is_some_and(|row| row.total_used > 0 || !row.grants.live.is_empty()) {
            let gate = gate.of_meter(meter.code);
            let quota = gate.quota(user).await?;
            found.push((gate, quota));
        }
    }
    Ok(found)
}

impl ListedUserBody {
    fn new(user: ListedUser, current: Period) -> Self {
        let is_over = month(user.period) < current.to_string();
        Self {
            user_uuid: user.user,
            membership_level: user.level,
            pending_level: user.pending,
            monthly_quota: user.quota,
            monthly_used: if is_over { 0 } else { user.used },
            total_used: user.total_used,
            updated_at: Seconds(user.updated_at).to_string(),
        }
    }
}

impl HoldBody {
    fn new(hold: &Hold) -> Self {
        Self {
            id: hold.id.to_string(),
            ap: hold.ap.get(),
            period: hold.period.to_string(),
            expires_at: Millis(hold.expires_at()).to_string(),
        }
    }
}

impl ComparisonBody {
    fn new(compared: &Compared) -> Self {
        let Compared { row, record, unflushed, difference, .. } = compared;
        Self {
            redis: record.as_ref().map(|record| SideBody {
                period: record.period.to_string(),
                monthly_used: record.used.get(),
                total_used: record.total_used,
            }),
            postgres: SideBody {
                period: row.period.to_string(),
                monthly_used: row.used.get(),
                total_used: row.total_used,
            },
            unflushed: *unflushed,
            drift: difference.as_ref().map(quota_gate::audit::verify::RecordDifference::reason),
        }
    }
}
