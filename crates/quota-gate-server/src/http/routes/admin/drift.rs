//! `GET /api/admin/drift`: compares Redis and Postgres for each user, one page at a time.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::routes::admin::{fresh, page::page_size, unavailable};
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedParams},
    },
    auth::Admin,
    extract::Params,
};
use quota_gate::{
    audit::verify::{RecordDifference, Verifier},
    domain::user_id::UserId,
};

/// Selects users.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DriftParams {
    /// `next` of the previous page.
    after: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Comparison of a page of users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DriftBody {
    /// Number of compared users.
    users: u64,
    /// Number of those users that are in Redis at the moment.
    records: u64,
    /// Users whose numbers in Redis differ from Postgres plus the stream.
    differences: Vec<DifferenceBody>,
    /// `after` for the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// A user whose numbers differ between the stores.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DifferenceBody {
    user_uuid: String,
    period: String,
    /// AP used in the period, according to Redis.
    redis_used: u64,
    /// AP used in the period, according to Postgres and the stream.
    postgres_used: u64,
    redis_total_used: u64,
    postgres_total_used: u64,
    /// Probable cause, and what to do.
    reason: String,
}

/// Compares a page of users. Exact even during traffic: usage that is not in Postgres yet is counted.
#[utoipa::path(
    get, path = "/api/admin/drift", tag = "admin", operation_id = "compareStores",
    params(DriftParams),
    responses(
        (status = 200, description = "A page", body = DriftBody),
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn compare(
    _: Admin,
    State(verifier): State<Arc<Verifier>>,
    Params(params): Params<DriftParams>,
) -> Result<Response, Problem> {
    let limit = page_size(params.limit)?;
    let after = params.after.as_deref().map(UserId::parse).transpose()?;
    let page = verifier.compare_page(after.as_ref(), limit).await.map_err(unavailable)?;
    let has_more = page.users == u64::from(limit);
    Ok(fresh(DriftBody {
        users: page.users,
        records: page.records,
        differences: page.differences.iter().map(DifferenceBody::new).collect(),
        next: page.last.filter(|_| has_more).map(|last| last.to_string()),
    }))
}

impl DifferenceBody {
    fn new(found: &RecordDifference) -> Self {
        Self {
            user_uuid: found.user.to_string(),
            period: found.period.to_string(),
            redis_used: found.used.0,
            postgres_used: found.used.1,
            redis_total_used: found.total_used.0,
            postgres_total_used: found.total_used.1,
            reason: found.reason(),
        }
    }
}
