//! `POST /api/chat/quota/reset` for the cron job, `GET` for monitoring.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::{
    answers::{problem::Problem, refusals::Refused, time::Seconds},
    auth::Cron,
};
use quota_gate::{
    audit::health::{FlushLag, HealthCheck, JobHealth},
    jobs::resetter::{Resetter, Trigger},
    store::postgres::ResetRun,
};

/// Result of a reset run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResetBody {
    /// Rows that were moved to the current period.
    reset_count: u64,
    /// Failed batches; the next run processes their rows.
    failed_count: u64,
    duration_ms: u64,
}

/// Health of the jobs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResetHealthBody {
    healthy: bool,
    /// Descriptions of what is wrong.
    problems: Vec<String>,
    /// The latest run; null before the first.
    #[schema(required = true)]
    last_run: Option<LastRunBody>,
    /// Rows whose period is over; they reset when next used, or at the next run.
    due_rows: u64,
    flush_lag: FlushLagBody,
    /// Usage events that Postgres refused.
    dead_letters: u64,
    /// Settlements accepted while Redis was unavailable, not applied yet.
    inbox: u64,
}

/// One run of the resetter.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastRunBody {
    trigger: String,
    started_at: String,
    #[schema(required = true)]
    finished_at: Option<String>,
    reset_count: i64,
    failed_count: i64,
    /// True if something failed; the gate's log has the error.
    failed: bool,
}

/// How far Postgres is behind Redis.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlushLagBody {
    events: u64,
    seconds: u64,
}

/// Runs the resetter. A repeated run changes nothing, and no run can grant quota.
#[utoipa::path(
    post, path = "/api/chat/quota/reset", tag = "operations", operation_id = "reset",
    responses(
        (status = 200, description = "Completed", body = ResetBody),
        Refused,
    ),
    security(("cron" = [])),
)]
pub(crate) async fn run(_: Cron, State(resetter): State<Arc<Resetter>>) -> Result<Json<ResetBody>, Problem> {
    // In a task: a broken connection of the cron job must not leave a run incomplete.
    let run = tokio::spawn(async move { resetter.run(Trigger::Endpoint).await });
    match run.await {
        Ok(Ok(report)) => Ok(Json(ResetBody {
            reset_count: report.reset_count,
            failed_count: report.failed_count,
            duration_ms: u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
        })),
        Ok(Err(error)) => {
            tracing::error!(%error, "the reset failed");
            Err(Problem::unavailable("the reset failed; it is safe to run it again"))
        }
        Err(error) => {
            tracing::error!(%error, "the reset failed");
            Err(Problem::unavailable("the reset failed; it is safe to run it again"))
        }
    }
}

/// Reports whether the reset is done and the flusher keeps up: 200 if healthy, 503 if not.
#[utoipa::path(
    get, path = "/api/chat/quota/reset", tag = "operations", operation_id = "resetHealth",
    responses(
        (status = 200, description = "Healthy", body = ResetHealthBody),
        (status = 503, description = "Not healthy: `problems` has the reasons", body = ResetHealthBody),
    ),
)]
pub(crate) async fn health(State(check): State<Arc<HealthCheck>>) -> Response {
    let body = match check.check().await {
        Ok(health) => ResetHealthBody::from(health),
        Err(error) => {
            tracing::warn!(%error, "cannot determine the health of the jobs");
            ResetHealthBody::unknown()
        }
    };
    let status = if body.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

impl From<JobHealth> for ResetHealthBody {
    fn from(health: JobHealth) -> Self {
        Self {
            healthy: health.problems.is_empty(),
            problems: health.problems,
            last_run: health.last_run.map(LastRunBody::from),
            due_rows: health.due_rows,
            flush_lag: FlushLag::of(&health.partitions).unwrap_or_default().into(),
            dead_letters: health.dead_letters,
            inbox: health.inbox,
        }
    }
}

impl From<ResetRun> for LastRunBody {
    fn from(run: ResetRun) -> Self {
        Self {
            trigger: run.trigger,
            started_at: Seconds(run.started_at).to_string(),
            finished_at: run.finished_at.map(|at| Seconds(at).to_string()),
            reset_count: run.rows,
            failed_count: run.failed,
            failed: run.failed > 0 || run.error.is_some(),
        }
    }
}

impl From<FlushLag> for FlushLagBody {
    fn from(lag: FlushLag) -> Self {
        Self { events: lag.events, seconds: lag.seconds }
    }
}

impl ResetHealthBody {
    fn unknown() -> Self {
        Self {
            healthy: false,
            problems: vec!["Postgres does not answer".into()],
            last_run: None,
            due_rows: 0,
            flush_lag: FlushLagBody { events: 0, seconds: 0 },
            dead_letters: 0,
            inbox: 0,
        }
    }
}
