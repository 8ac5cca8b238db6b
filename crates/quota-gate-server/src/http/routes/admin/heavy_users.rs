//! `GET /api/admin/top-users`, `…/forecast`: users with the most usage; users who will run out before the reset.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::routes::admin::{fresh, page::page_size, unavailable};
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedParams},
        time::Seconds,
    },
    auth::Admin,
    extract::Params,
};
use quota_gate::{
    audit::verify::Verifier,
    domain::{
        InvalidInput,
        calendar::{AnchorDay, Period},
        level::LevelName,
    },
    gate::Gate,
    store::postgres::{HeavyUser, LevelForecast, RunningOut},
};

/// Selects a period.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TopUsersParams {
    /// Month; the current one by default.
    #[param(example = "2026-11")]
    period: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Selects users.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForecastParams {
    /// Only users of this level.
    level: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Users with the most usage in a month. For the current month: in their current periods; for a past one: in periods
/// that began in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopUsersBody {
    period: String,
    users: Vec<HeavyUserBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HeavyUserBody {
    user_uuid: String,
    membership_level: String,
    monthly_quota: i32,
    monthly_used: i64,
}

/// Users who will run out before the reset, estimated from their usage so far.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ForecastBody {
    /// The calendar month, in which most users' periods end.
    period: String,
    /// End of that month. A user's own period may end earlier or later; the forecast uses it.
    quota_reset_at: String,
    levels: Vec<LevelForecastSumBody>,
    /// Ordered by the time at which they run out.
    users: Vec<RunningOutBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LevelForecastSumBody {
    membership_level: String,
    /// Users with usage.
    active: i64,
    /// Users whose quota is used up.
    exhausted: i64,
    /// Users whose quota will be used up before the reset at their current rate.
    running_out: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunningOutBody {
    #[serde(flatten)]
    user: HeavyUserBody,
    /// When the quota will be used up.
    runs_out_at: String,
}

/// Users with the most usage in a month, as far as it is in Postgres.
#[utoipa::path(
    get, path = "/api/admin/top-users", tag = "admin", operation_id = "topUsers",
    params(TopUsersParams),
    responses(
        (status = 200, description = "The users", body = TopUsersBody),
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn top(
    _: Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    Params(params): Params<TopUsersParams>,
) -> Result<Response, Problem> {
    let limit = page_size(params.limit)?;
    let current = gate.calendar().month_at(gate.now());
    let period = params.period.as_deref().map_or(Ok(current), read_period)?;
    let users = if period == current {
        verifier.postgres.top_users(gate.now(), limit).await
    } else {
        verifier.postgres.top_users_of_month(period, limit).await
    };
    let users = users.map_err(unavailable)?;
    let users = users.into_iter().map(HeavyUserBody::from).collect();
    Ok(fresh(TopUsersBody { period: period.to_string(), users }))
}

/// Users who will run out before the reset: they have used a larger part of the quota than of the month has passed.
#[utoipa::path(
    get, path = "/api/admin/forecast", tag = "admin", operation_id = "getForecast",
    params(ForecastParams),
    responses(
        (status = 200, description = "The forecast", body = ForecastBody),
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn forecast(
    _: Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    Params(params): Params<ForecastParams>,
) -> Result<Response, Problem> {
    let limit = page_size(params.limit)?;
    let level = params.level.as_deref();
    level.map(LevelName::parse).transpose()?;
    let (calendar, now) = (gate.calendar(), gate.now());
    let (month, time_zone) = (calendar.month_at(now), calendar.time_zone());
    let levels = verifier.postgres.forecast(now, time_zone).await.map_err(unavailable)?;
    let users = verifier.postgres.running_out(now, time_zone, level, limit).await.map_err(unavailable)?;
    let running_out = |RunningOut { user, runs_out_at }: RunningOut| RunningOutBody {
        user: user.into(),
        runs_out_at: Seconds(runs_out_at).to_string(),
    };
    Ok(fresh(ForecastBody {
        period: month.to_string(),
        quota_reset_at: Seconds(calendar.period_end(month, AnchorDay::FIRST)).to_string(),
        levels: levels.into_iter().map(LevelForecastSumBody::from).collect(),
        users: users.into_iter().map(running_out).collect(),
    }))
}

/// Parses `2026-11`.
fn read_period(text: &str) -> Result<Period, InvalidInput> {
    let wrong = || InvalidInput { field: "period", rule: "must be a month, such as 2026-11".into() };
    let (year, month) = text.split_once('-').ok_or_else(wrong)?;
    if (year.len(), month.len()) != (4, 2) {
        return Err(wrong());
    }
    let id = format!("{year}{month}").parse().map_err(|_| wrong())?;
    Period::from_id(id).map_err(|_| wrong())
}

impl From<HeavyUser> for HeavyUserBody {
    fn from(user: HeavyUser) -> Self {
        Self { user_uuid: user.user, membership_level: user.level, monthly_quota: user.quota, monthly_used: user.used }
    }
}

impl From<LevelForecast> for LevelForecastSumBody {
    fn from(level: LevelForecast) -> Self {
        Self {
            membership_level: level.level,
            active: level.active,
            exhausted: level.exhausted,
            running_out: level.running_out,
        }
    }
}
