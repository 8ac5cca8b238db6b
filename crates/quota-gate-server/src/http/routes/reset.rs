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

use crate::http::answers::quota::rfc3339;
use crate::http::{
    answers::{problem::Problem, refusals::Refused},
    auth::Cron,
};
use quota_gate::{
    audit::health::{FlushLag, HealthCheck, JobHealth},
    jobs::resetter::{Resetter, Trigger},
    store::postgres::ResetRun,
};

/// What a reset run did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResetBody {
    /// Rows that were brought into the current period.
    reset_count: u64,
    /// Batches that failed; the next run finds their rows.
    failed_count: u64,
    duration_ms: u64,
}

/// How the jobs are doing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResetHealthBody {
    healthy: bool,
    /// What is wrong, in words.
    problems: Vec<String>,
    /// The newest run; null before the first.
    #[schema(required = true)]
    last_run: Option<LastRunBody>,
    /// Rows whose period is over; they reset when they are next needed, or at the next run.
    due_rows: u64,
    flush_lag: FlushLagBody,
    /// Usage events that Postgres refused.
    dead_letters: u64,
    /// Settlements that were accepted while Redis was away and wait to be made.
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
    /// Something failed: the gate's log says what.
    failed: bool,
}

/// How far Postgres is behind Redis.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlushLagBody {
    events: u64,
    seconds: u64,
}

/// Runs the resetter. Running it again changes nothing, and it cannot grant quota.
#[utoipa::path(
    post, path = "/api/chat/quota/reset", tag = "operations", operation_id = "reset",
    responses(
        (status = 200, description = "Ran", body = ResetBody),
        Refused,
    ),
    security(("cron" = [])),
)]
pub(crate) async fn run(_: Cron, State(resetter): State<Arc<Resetter>>) -> Result<Json<ResetBody>, Problem> {
    // It goes on when the cron job's connection breaks, so that no run is left half done.
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

/// Is the reset done and the flusher keeping up? 200 when healthy, 503 when not.
#[utoipa::path(
    get, path = "/api/chat/quota/reset", tag = "operations", operation_id = "resetHealth",
    responses(
        (status = 200, description = "Healthy", body = ResetHealthBody),
        (status = 503, description = "Not healthy: problems says why", body = ResetHealthBody),
    ),
)]
pub(crate) async fn health(State(check): State<Arc<HealthCheck>>) -> Response {
    let body = match check.look().await {
        Ok(health) => ResetHealthBody::from(health),
        Err(error) => {
            tracing::warn!(%error, "health cannot be told");
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
            started_at: rfc3339(run.started_at),
            finished_at: run.finished_at.map(rfc3339),
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
