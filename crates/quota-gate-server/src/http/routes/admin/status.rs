//! `GET /api/admin/status`: state of the gate, for administrators.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::routes::admin::{fresh, unavailable};
use crate::http::{
    answers::{problem::Problem, refusals::Refused, time::Millis},
    auth::Admin,
    routes::reset::{FlushLagBody, LastRunBody},
};
use quota_gate::{
    audit::health::{HealthCheck, PartitionHealth},
    audit::verify::Verifier,
    gate::Gate,
    store::postgres::DeadLetter,
};

/// Maximum entries in the answer.
const RUNS_SHOWN: u32 = 10;
const LETTERS_SHOWN: u32 = 20;

/// State of the gate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusBody {
    /// Time of this state.
    as_of: String,
    /// Version of the program.
    version: &'static str,
    /// Descriptions of what is wrong.
    problems: Vec<String>,
    redis_answers: bool,
    /// Time zone of days and months.
    time_zone: String,
    levels: Vec<LevelBody>,
    partitions: Vec<PartitionBody>,
    /// Rows whose period is over; they reset when next used, or at the next run.
    due_rows: u64,
    /// The latest runs of the resetter, newest first.
    reset_runs: Vec<LastRunBody>,
    /// Settlements accepted while Redis was unavailable, not applied yet.
    inbox: u64,
    /// Usage events that Postgres refused.
    dead_letters: u64,
    /// The latest dead letters.
    newest_dead_letters: Vec<DeadLetterBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LevelBody {
    membership_level: String,
    monthly_quota: u32,
}

/// A partition, and how far Postgres is behind.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PartitionBody {
    number: u16,
    /// Increases whenever Redis lost or may have lost data.
    generation: u32,
    opened_at: String,
    /// It is being opened.
    is_opening: bool,
    /// Entries of its usage stream; null while Redis is unavailable.
    #[schema(required = true)]
    stream_length: Option<u64>,
    #[schema(required = true)]
    flush_lag: Option<FlushLagBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetterBody {
    id: i64,
    at: String,
    /// The stream entry.
    entry: String,
    #[schema(required = true)]
    user_uuid: Option<String>,
    #[schema(required = true)]
    ap: Option<i32>,
    /// Why Postgres refused it.
    reason: String,
}

/// Returns the state of the gate: partitions, flush lag, resets, dead letters.
#[utoipa::path(
    get, path = "/api/admin/status", tag = "admin", operation_id = "getStatus",
    responses((status = 200, description = "The state", body = StatusBody), Refused),
    security(("admin" = [])),
)]
pub(crate) async fn status(
    _: Admin,
    State(gate): State<Gate>,
    State(check): State<Arc<HealthCheck>>,
    State(verifier): State<Arc<Verifier>>,
) -> Result<Response, Problem> {
    let postgres = &verifier.postgres;
    let health = check.check().await.map_err(unavailable)?;
    let runs = postgres.reset_runs(RUNS_SHOWN).await.map_err(unavailable)?;
    let letters = postgres.dead_letters(LETTERS_SHOWN).await.map_err(unavailable)?;
    Ok(fresh(StatusBody {
        as_of: Millis(gate.now()).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        redis_answers: health.partitions.iter().all(|partition| partition.stream.is_some()),
        problems: health.problems,
        time_zone: gate.calendar().time_zone().name().to_owned(),
        levels: gate
            .levels()
            .iter()
            .map(|level| LevelBody { membership_level: level.name.to_string(), monthly_quota: level.quota.get() })
            .collect(),
        partitions: health.partitions.into_iter().map(PartitionBody::from).collect(),
        due_rows: health.due_rows,
        reset_runs: runs.into_iter().map(LastRunBody::from).collect(),
        inbox: health.inbox,
        dead_letters: health.dead_letters,
        newest_dead_letters: letters.into_iter().map(DeadLetterBody::from).collect(),
    }))
}

impl From<PartitionHealth> for PartitionBody {
    fn from(partition: PartitionHealth) -> Self {
        let (stream_length, flush_lag) = partition.stream.map(|stream| (stream.entries, stream.lag.into())).unzip();
        Self {
            number: partition.number,
            generation: partition.generation,
            opened_at: Millis(partition.opened_at).to_string(),
            is_opening: partition.is_opening,
            stream_length,
            flush_lag,
        }
    }
}

impl From<DeadLetter> for DeadLetterBody {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            at: Millis(letter.at).to_string(),
            entry: letter.entry,
            user_uuid: letter.user,
            ap: letter.ap,
            reason: letter.reason,
        }
    }
}
