//! `POST /api/admin/price-replay`: runs the usage log through proposed levels and prices. Changes nothing.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use chrono::NaiveDate;
use serde::Deserialize;
use utoipa::{IntoResponses, ToSchema};

use crate::http::routes::admin::{fresh, unavailable};
use crate::http::{
    answers::{
        problem::{Code, Problem},
        refusals::{Refused, RefusedBody},
    },
    auth::Admin,
    extract::Body,
};
use crate::price_replay::{LevelValue, ModelValue, PriceReplayBody, proposal};
use quota_gate::{
    audit::price_replay::{PriceReplay, PriceReplayError, ReplayedDays},
    gate::Gate,
};

/// Maximum days of a replay by this route. The command has a larger maximum.
const DAYS_MAX: u16 = 92;

/// A proposal. What is omitted stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayPricesBody {
    /// First day.
    #[schema(example = "2026-11-01", value_type = String, format = Date)]
    from: NaiveDate,
    /// Last day; at most 92 days are replayed.
    #[schema(example = "2026-11-30", value_type = String, format = Date)]
    to: NaiveDate,
    /// Quotas and windows by level. Users of a level that is not listed keep its present quota.
    levels: Option<BTreeMap<String, LevelValue>>,
    /// Prices by name or pattern of the model, as in the configuration. `default` is required.
    models: Option<BTreeMap<String, ModelValue>>,
}

/// CONFLICT: another replay is running
#[derive(IntoResponses)]
#[response(status = 409, content_type = "application/problem+json")]
#[expect(dead_code, reason = "the type only describes an answer in the contract")]
pub(crate) struct AnotherReplay(Problem);

/// Replays the usage log with proposed levels and prices: who would have been denied, when, and what would have been
/// charged. It may take a minute. One replay runs at a time.
#[utoipa::path(
    post, path = "/api/admin/price-replay", tag = "admin", operation_id = "replayPrices",
    request_body = ReplayPricesBody,
    responses((status = 200, description = "The result", body = PriceReplayBody), Refused, RefusedBody, AnotherReplay),
    security(("admin" = [])),
)]
pub(crate) async fn replay(
    _: Admin,
    State(gate): State<Gate>,
    Body(body): Body<ReplayPricesBody>,
) -> Result<Response, Problem> {
    let days = ReplayedDays::new(body.from, body.to, DAYS_MAX)?;
    let (postgres, calendar) = (gate.postgres().clone(), gate.calendar());
    let present = postgres.all_levels().await.map_err(unavailable)?;
    let proposal = proposal(&present, body.levels, body.models)?;
    let report = PriceReplay { postgres, calendar }.run(days, proposal).await.map_err(|error| match error {
        PriceReplayError::Running => Problem::new(Code::Conflict, error.to_string()),
        PriceReplayError::Postgres(error) => unavailable(error),
    })?;
    Ok(fresh(PriceReplayBody::new(days, calendar, &present, report)))
}
