//! Liveness, readiness and metrics, for operators.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::http::{
    AppState, Readiness,
    answers::problem::{Code, Problem},
};
use quota_gate::gate::Gate;

/// Timeout of each ping. Probes usually wait one second; an unavailable store must not delay the answer beyond that.
const PING_MAX: Duration = Duration::from_millis(500);

/// Readiness of the gate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the values are independent")]
pub(crate) struct ReadyBody {
    ready: bool,
    redis: bool,
    /// True if other gates serve from another Redis. This gate does not serve then.
    other_redis: bool,
    postgres: bool,
    /// True if the gate is about to stop.
    stopping: bool,
    /// What this gate cannot do, although it is ready, and how to change that; null if there is nothing.
    #[schema(required = true)]
    problem: Option<String>,
}

/// Reports that the process is running.
#[utoipa::path(get, path = "/healthz", tag = "operations", operation_id = "live", responses((status = 200, description = "ok")))]
pub(crate) async fn live() -> &'static str {
    "ok"
}

/// Reports whether the gate is ready for requests. Only Redis counts: users in Redis are served without Postgres too.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "ready",
    responses((status = 200, description = "Ready", body = ReadyBody), (status = 503, description = "Not ready", body = ReadyBody)),
)]
pub(crate) async fn ready(
    State(gate): State<Gate>,
    State(readiness): State<Arc<Readiness>>,
) -> (StatusCode, Json<ReadyBody>) {
    let redis = timeout(PING_MAX, gate.redis().ping());
    let postgres = timeout(PING_MAX, gate.postgres().ping());
    let (redis, postgres) = tokio::join!(redis, postgres);
    let (redis, postgres) = (matches!(redis, Ok(Ok(()))), matches!(postgres, Ok(Ok(()))));
    let stopping = readiness.stopping.is_cancelled();
    let problem = gate.newer_journal_problem();
    let other_redis = gate.refusal().is_some();
    let ready = redis && !other_redis && !stopping;
    let body = ReadyBody { ready, redis, other_redis, postgres, stopping, problem };
    let status = if body.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body))
}

/// Returns metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "metrics", responses((status = 200, description = "Metrics", content_type = "text/plain")))]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<String, Problem> {
    let handle = state.metrics().ok_or_else(|| Problem::new(Code::NotFound, "this gate collects no metrics"))?;
    Ok(handle.render())
}
