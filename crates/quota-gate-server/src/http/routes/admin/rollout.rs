//! `/api/admin/rollout`: for which users the gate decides, and who changed that.

use std::collections::BTreeSet;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedBody},
        time::Millis,
    },
    auth::Admin,
    extract::Body,
};
use quota_gate::{
    domain::{
        InvalidInput,
        author::Author,
        rollout::{Mode, Percentage, Rollout},
        user_id::UserId,
    },
    gate::{Gate, RolloutCounts},
    store::postgres::{PostgresError, RolloutChange},
};

/// Changes in the answer.
const SHOWN: u32 = 50;
/// Maximum users of a list.
const LISTED_MAX: usize = 10_000;

/// A change of the rollout. Omitted members stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChangeRolloutBody {
    mode: Option<ModeWord>,
    /// Share of the users for whom the gate decides, in percent.
    #[schema(minimum = 0, maximum = 100, example = 12.5)]
    percentage: Option<f64>,
    /// Users who are in, regardless of the percentage.
    always_in: Option<Vec<String>>,
    /// Users who are out, regardless of everything else.
    always_out: Option<Vec<String>>,
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// `off` passes messages, `shadow` decides without denying, `enforce` decides.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeWord {
    Off,
    Shadow,
    Enforce,
}

/// For which users the gate decides.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RolloutBody {
    mode: ModeWord,
    #[schema(example = 12.5)]
    percentage: f64,
    always_in: Vec<String>,
    always_out: Vec<String>,
    /// Messages that this gate passed, or decided in shadow mode, since it started.
    tally: RolloutCountsBody,
    /// The latest changes, newest first.
    changes: Vec<RolloutChangeBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RolloutCountsBody {
    /// Messages of users for whom the gate does not decide.
    out: u64,
    /// Messages charged in shadow mode.
    shadow_allowed: u64,
    /// Messages that would have been denied.
    shadow_denied: u64,
    /// Messages without a decision.
    shadow_undecided: u64,
}

/// A change of the rollout.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RolloutChangeBody {
    at: String,
    /// Id of the token, or `configuration`.
    by: String,
    reason: String,
    mode: ModeWord,
    percentage: f64,
    always_in: Vec<String>,
    always_out: Vec<String>,
}

/// Returns the rollout and its latest changes.
#[utoipa::path(
    get, path = "/api/admin/rollout", tag = "admin", operation_id = "getRollout",
    responses((status = 200, description = "The rollout", body = RolloutBody), Refused),
    security(("admin" = [])),
)]
pub(crate) async fn show(_: Admin, State(gate): State<Gate>) -> Result<impl IntoResponse, Problem> {
    let changes = gate.postgres().rollout_changes(SHOWN).await.map_err(|error| unavailable(&error))?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(RolloutBody::new(&gate, changes))))
}

/// Changes the rollout. The change applies immediately at this gate, and within seconds at every other gate.
#[utoipa::path(
    patch, path = "/api/admin/rollout", tag = "admin", operation_id = "changeRollout",
    request_body = ChangeRolloutBody,
    responses((status = 200, description = "The new rollout", body = RolloutBody), Refused, RefusedBody),
    security(("admin" = [])),
)]
pub(crate) async fn change(
    Admin(by): Admin,
    State(gate): State<Gate>,
    Body(body): Body<ChangeRolloutBody>,
) -> Result<impl IntoResponse, Problem> {
    // The rollout in this gate's memory may be a second old.
    let newest = gate.postgres().rollout_changes(1).await.map_err(|error| unavailable(&error))?.pop();
    let author = Author::person(&by, &body.reason)?;
    let rollout = body.apply(&newest.map_or_else(Rollout::default, |change| change.rollout))?;
    gate.change_rollout(rollout, &author.by, &author.reason).await.map_err(|error| unavailable(&error))?;
    let changes = gate.postgres().rollout_changes(SHOWN).await.map_err(|error| unavailable(&error))?;
    Ok(Json(RolloutBody::new(&gate, changes)))
}

fn unavailable(error: &PostgresError) -> Problem {
    tracing::warn!(%error, "cannot read the rollout");
    Problem::unavailable(
        "Postgres, which stores the rollout, is unavailable; set rollout.mode in the configuration, or try again",
    )
}

impl ChangeRolloutBody {
    fn apply(self, now: &Rollout) -> Result<Rollout, InvalidInput> {
        let invalid = |field: &'static str, rule: String| InvalidInput { field, rule };
        let users = |field: &'static str, ids: Vec<String>| {
            if ids.len() > LISTED_MAX {
                return Err(invalid(field, format!("has at most {LISTED_MAX} users; use the percentage")));
            }
            ids.iter().map(|id| UserId::parse(id)).collect::<Result<_, _>>()
        };
        let mut rollout = now.clone();
        if let Some(mode) = self.mode {
            rollout.mode = mode.into();
        }
        if let Some(percentage) = self.percentage {
            rollout.percentage = Percentage::try_from(percentage)?;
        }
        if let Some(ids) = self.always_in {
            rollout.always_in = users("alwaysIn", ids)?;
        }
        if let Some(ids) = self.always_out {
            rollout.always_out = users("alwaysOut", ids)?;
        }
        Ok(rollout)
    }
}

impl RolloutBody {
    fn new(gate: &Gate, changes: Vec<RolloutChange>) -> Self {
        let now = gate.rollout();
        let RolloutCounts { out, shadow_allowed, shadow_denied, shadow_undecided } = gate.rollout_counts();
        Self {
            mode: now.mode.into(),
            percentage: now.percentage.get(),
            always_in: ids(&now.always_in),
            always_out: ids(&now.always_out),
            tally: RolloutCountsBody { out, shadow_allowed, shadow_denied, shadow_undecided },
            changes: changes.into_iter().map(RolloutChangeBody::from).collect(),
        }
    }
}

impl From<RolloutChange> for RolloutChangeBody {
    fn from(change: RolloutChange) -> Self {
        let RolloutChange { at, by, reason, rollout, .. } = change;
        Self {
            at: Millis(at).to_string(),
            by,
            reason,
            mode: rollout.mode.into(),
            percentage: rollout.percentage.get(),
            always_in: ids(&rollout.always_in),
            always_out: ids(&rollout.always_out),
        }
    }
}

fn ids(users: &BTreeSet<UserId>) -> Vec<String> {
    users.iter().map(UserId::to_string).collect()
}

impl From<Mode> for ModeWord {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Shadow => Self::Shadow,
            Mode::Enforce => Self::Enforce,
        }
    }
}

impl From<ModeWord> for Mode {
    fn from(word: ModeWord) -> Self {
        match word {
            ModeWord::Off => Self::Off,
            ModeWord::Shadow => Self::Shadow,
            ModeWord::Enforce => Self::Enforce,
        }
    }
}
