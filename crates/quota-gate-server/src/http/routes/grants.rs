//! `/api/chat/quota/grants`: gives, lists and voids grants, which are AP beside the quota of a level.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedBody, RefusedParams, UnknownGrant},
        time::Millis,
    },
    auth::{GrantReader, Granter},
    extract::{Body, GrantId, Params},
};
use quota_gate::{
    domain::{
        author::Author,
        new_grant::{ExternalId, GrantSource, NewGrant, Priority},
        user_id::UserId,
    },
    gate::{Gate, GrantGiven},
    store::postgres::GrantRow,
};

/// A grant to give.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GiveGrantBody {
    #[schema(example = "0f8fad5b-d9cb-469f-a165-70867728950e", pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    user_uuid: String,
    #[schema(minimum = 1, maximum = 100_000_000)]
    ap: i64,
    /// When what is left expires; by default never. Kept in milliseconds.
    #[schema(example = "2027-01-31T00:00:00Z")]
    expires_at: Option<String>,
    /// Grants of a lower number pay first; 100 by default. Of the same number, those that expire first.
    #[schema(minimum = 0, maximum = 255)]
    priority: Option<i64>,
    /// What the grant comes from. `unknown` and `transfer` are the gate's own.
    #[schema(example = "bonus", pattern = "^[a-z0-9._-]{1,64}$")]
    source: String,
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: Option<String>,
    /// The caller's id of the grant, which makes the request safe to repeat.
    #[schema(example = "order-4711", min_length = 1, max_length = 255)]
    external_id: String,
}

/// Selects grants.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GrantsParams {
    /// The user.
    user_uuid: String,
}

/// A void.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VoidGrantBody {
    /// Reason, recorded in the history.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// A grant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrantBody<'a> {
    #[schema(value_type = String)]
    id: Uuid,
    user_uuid: &'a str,
    state: StateWord,
    /// AP at first: granted = charged + transferred + left.
    granted: u64,
    /// AP that messages have cost, as far as they are in Postgres.
    charged: u64,
    /// AP that went to other users, as far as they are in Postgres.
    transferred: u64,
    /// AP that remain, have expired or were voided: `state` says which.
    left: u64,
    #[schema(value_type = Option<String>, required = true)]
    expires_at: Option<Millis>,
    priority: u8,
    source: &'a str,
    /// Empty if a program gave none.
    reason: &'a str,
    /// Null for a transferred grant.
    #[schema(required = true)]
    external_id: Option<&'a str>,
    #[schema(value_type = String)]
    created_at: Millis,
    /// Id of the token, or the part of the gate that made it.
    created_by: &'a str,
    #[schema(value_type = Option<String>, required = true)]
    voided_at: Option<Millis>,
    #[schema(required = true)]
    void_reason: Option<&'a str>,
    /// The user who transferred it; null if it was not transferred.
    #[schema(required = true)]
    received_from: Option<&'a str>,
}

/// What became of a grant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StateWord {
    /// What is left can be used.
    Live,
    /// It was transferred just now, or the user has 32 live grants: it can be used when one of them is used up or ends.
    Waiting,
    /// Nothing is left.
    Used,
    /// What is left has expired.
    Expired,
    /// What is left was voided.
    Voided,
}

/// A grant that was given or voided.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantDoneBody<'a> {
    /// True if it had been done before.
    replayed: bool,
    grant: GrantBody<'a>,
}

/// Grants of a user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantsBody<'a> {
    /// The newest 200, newest first.
    grants: Vec<GrantBody<'a>>,
}

/// Gives a user a grant, once for each `externalId`. The AP can be used within a second.
#[utoipa::path(
    post, path = "/api/chat/quota/grants", tag = "grants", operation_id = "giveGrant",
    request_body = GiveGrantBody,
    responses(
        (status = 201, description = "Given", body = GrantDoneBody<'_>),
        (status = 200, description = "Given before, by the same request", body = GrantDoneBody<'_>),
        (status = 409, description = "CONFLICT: the user has 32 live grants", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "MISMATCH: the externalId was used for another grant of this user", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("grant" = []), ("admin" = [])),
)]
pub(crate) async fn give(
    Granter(by): Granter,
    State(gate): State<Gate>,
    Body(body): Body<GiveGrantBody>,
) -> Result<Response, Problem> {
    let grant = NewGrant {
        user: UserId::parse(&body.user_uuid)?,
        ap: NewGrant::ap(body.ap)?,
        expires_at: body.expires_at.as_deref().map(NewGrant::expiry).transpose()?,
        priority: body.priority.map(Priority::new).transpose()?.unwrap_or(Priority::DEFAULT),
        source: GrantSource::parse(&body.source)?,
        meter: gate.meter(),
        external_id: ExternalId::parse(&body.external_id)?,
    };
    let author = Author::program(&by, body.reason.as_deref())?;
    let given = gate.give_grant(&grant, &author).await?;
    let status = if given.replayed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(GrantDoneBody::of(&given, gate.now()))).into_response())
}

/// Lists the grants of a user, also those that are used up, have expired or are voided.
#[utoipa::path(
    get, path = "/api/chat/quota/grants", tag = "grants", operation_id = "listGrants",
    params(GrantsParams),
    responses(
        (status = 200, description = "Grants; none for an unknown user", body = GrantsBody<'_>),
        Refused,
        RefusedParams,
    ),
    security(("grant" = []), ("service" = []), ("admin" = [])),
)]
pub(crate) async fn list(
    _: GrantReader,
    State(gate): State<Gate>,
    Params(params): Params<GrantsParams>,
) -> Result<Response, Problem> {
    let rows = gate.grants_of(&UserId::parse(&params.user_uuid)?).await?;
    let now = gate.now();
    let body = GrantsBody { grants: rows.iter().map(|row| GrantBody::new(row, now)).collect() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Voids what is left of a grant, for example after a refund. Holds that were made before keep what they need of it.
#[utoipa::path(
    post, path = "/api/chat/quota/grants/{id}/void", tag = "grants", operation_id = "voidGrant",
    params(("id" = String, Path, description = "The grant's id")),
    request_body = VoidGrantBody,
    responses(
        (status = 200, description = "Voided, now or before", body = GrantDoneBody<'_>),
        UnknownGrant,
        Refused,
        RefusedBody,
    ),
    security(("grant" = []), ("admin" = [])),
)]
pub(crate) async fn void(
    Granter(by): Granter,
    State(gate): State<Gate>,
    GrantId(id): GrantId,
    Body(body): Body<VoidGrantBody>,
) -> Result<Response, Problem> {
    let voided = gate.void_grant(id, &Author::person(&by, &body.reason)?).await?;
    let body = GrantDoneBody { replayed: voided.replayed, grant: GrantBody::new(&voided.grant, gate.now()) };
    Ok(Json(body).into_response())
}

impl<'a> GrantDoneBody<'a> {
    pub(crate) fn of(given: &'a GrantGiven, now: DateTime<Utc>) -> Self {
        Self { replayed: given.replayed, grant: GrantBody::new(&given.grant, now) }
    }
}

impl<'a> GrantBody<'a> {
    pub(crate) fn new(row: &'a GrantRow, now: DateTime<Utc>) -> Self {
        Self {
            id: row.id,
            user_uuid: row.user.as_str(),
            state: StateWord::of(row, now),
            granted: row.granted,
            charged: row.charged,
            transferred: row.transferred,
            left: row.left(),
            expires_at: row.expires_at.map(Millis),
            priority: row.priority,
            source: &row.source,
            reason: &row.reason,
            external_id: row.external_id.as_deref(),
            created_at: Millis(row.created_at),
            created_by: &row.created_by,
            voided_at: row.voided_at.map(Millis),
            void_reason: row.void_reason.as_deref(),
            received_from: row.received_from.as_ref().map(UserId::as_str),
        }
    }
}

impl StateWord {
    fn of(row: &GrantRow, now: DateTime<Utc>) -> Self {
        if row.voided_at.is_some() {
            Self::Voided
        } else if row.left() == 0 {
            Self::Used
        } else if row.expires_at.is_some_and(|at| at <= now) {
            Self::Expired
        } else if row.number.is_none() {
            Self::Waiting
        } else {
            Self::Live
        }
    }
}
