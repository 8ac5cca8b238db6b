//! Liveness, readiness and metrics, for whoever runs the gate.

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

/// Whoever asks waits a second, as a rule. A store that is away must not make the answer later than that.
const PING_MAX: Duration = Duration::from_millis(500);

/// May requests be sent here?
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is the answer to a question of its own")]
pub(crate) struct ReadyBody {
    ready: bool,
    redis: bool,
    postgres: bool,
    /// The gate is about to stop.
    stopping: bool,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "operations", operation_id = "live", responses((status = 200, description = "ok")))]
pub(crate) async fn live() -> &'static str {
    "ok"
}

/// May requests be sent here? Without Postgres, users whom Redis knows are still served, so only Redis counts.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "ready",
    responses((status = 200, description = "Yes", body = ReadyBody), (status = 503, description = "No", body = ReadyBody)),
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
    let body = ReadyBody { ready: redis && !stopping, redis, postgres, stopping };
    let status = if body.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body))
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "metrics", responses((status = 200, description = "Metrics", content_type = "text/plain")))]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<String, Problem> {
    let handle = state.metrics().ok_or_else(|| Problem::new(Code::NotFound, "this gate collects no metrics"))?;
    Ok(handle.render())
}
