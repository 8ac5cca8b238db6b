//! `/api/chat/quota/transfers`: transfers AP of a user's grants to another user.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::grants::GrantBody;
use crate::http::{
    AppState,
    answers::{
        problem::{Code, Problem},
        refusals::{Refused, RefusedBody, UnknownTransfer},
    },
    auth::Granter,
    extract::{Body, IdempotencyHeader, TransferId},
};
use quota_gate::{
    domain::{author::Author, new_grant::NewGrant, transfer::Receipt, user_id::UserId},
    gate::{Gate, Transfer, TransferState},
};

/// AP to transfer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TransferBody {
    /// The user whose grants pay.
    #[schema(example = "0f8fad5b-d9cb-469f-a165-70867728950e", pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    from_user_uuid: String,
    /// The user who receives them.
    #[schema(example = "7c9e6679-7425-40de-944b-e07fc1f90ae7", pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    to_user_uuid: String,
    #[schema(minimum = 1, maximum = 100_000_000)]
    ap: i64,
    /// Reason, recorded with the receiver's grants: at most 255 bytes.
    #[schema(min_length = 1, max_length = 255)]
    reason: Option<String>,
}

/// A transfer that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TransferredBody {
    #[schema(value_type = String)]
    transfer_id: Uuid,
    state: TransferStateWord,
    /// True for the answer to an earlier request with the same Idempotency-Key.
    replayed: bool,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransferStateWord {
    /// Redis has it. If Redis loses it, the sender keeps the AP, and the receiver gets none.
    Accepted,
    /// It is in the usage log, and the receiver has the grants.
    Logged,
}

/// A transfer in the usage log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoggedTransferBody<'a> {
    #[schema(value_type = String)]
    transfer_id: Uuid,
    state: TransferStateWord,
    from_user_uuid: &'a str,
    to_user_uuid: &'a str,
    ap: u64,
    /// The receiver's grants: one for each of the sender's grants that paid a part.
    grants: Vec<GrantBody<'a>>,
}

/// Transfers AP of a user's live grants that no reservation needs. AP of the level's quota cannot be transferred.
#[utoipa::path(
    post, path = "/api/chat/quota/transfers", tag = "grants", operation_id = "transfer",
    params(("Idempotency-Key" = String, Header, description = "Required: makes the request safe to repeat")),
    request_body = TransferBody,
    responses(
        (status = 202, description = "Accepted: the receiver can use the AP within about a second", body = TransferredBody),
        (status = 200, description = "Transferred before, by the same request, and logged", body = TransferredBody),
        (status = 409, description = "CONFLICT: the sender's grants do not cover it; `detail` has what can be transferred", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "USER_FORGOTTEN: the sender was forgotten", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "MISMATCH: the Idempotency-Key was used for another request", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("grant" = []), ("admin" = [])),
)]
pub(crate) async fn transfer(
    Granter(by): Granter,
    State(state): State<AppState>,
    State(gate): State<Gate>,
    IdempotencyHeader(key): IdempotencyHeader,
    Body(body): Body<TransferBody>,
) -> Result<Response, Problem> {
    state.require_transfers()?;
    let key = key.ok_or_else(|| Problem::new(Code::InvalidRequest, "send an Idempotency-Key: a transfer needs one"))?;
    let sender = UserId::parse(&body.from_user_uuid)?;
    let author = Author::program(&by, body.reason.as_deref())?;
    let receipt = Receipt::new(&sender, UserId::parse(&body.to_user_uuid)?, author)?;
    let done = gate.transfer(&Transfer { sender, ap: NewGrant::ap(body.ap)?, receipt, key }).await?;
    let status = match done.state {
        TransferState::Accepted => StatusCode::ACCEPTED,
        TransferState::Logged => StatusCode::OK,
    };
    let body = TransferredBody { transfer_id: done.id, state: done.state.into(), replayed: done.replayed };
    Ok((status, Json(body)).into_response())
}

/// Returns a transfer that is in the usage log, and what has become of the receiver's grants.
#[utoipa::path(
    get, path = "/api/chat/quota/transfers/{id}", tag = "grants", operation_id = "getTransfer",
    params(("id" = String, Path, description = "The transfer's id")),
    responses(
        (status = 200, description = "The transfer", body = LoggedTransferBody<'_>),
        UnknownTransfer,
        Refused,
    ),
    security(("grant" = []), ("admin" = [])),
)]
pub(crate) async fn show(
    _: Granter,
    State(gate): State<Gate>,
    TransferId(id): TransferId,
) -> Result<Response, Problem> {
    let grants = gate.grants_of_transfer(id).await?;
    let Some((first, sender)) = grants.first().and_then(|first| Some((first, first.received_from.as_ref()?))) else {
        let detail = "no such transfer in the log; one that was accepted just now follows in a moment";
        return Err(Problem::new(Code::NotFound, detail));
    };
    let body = LoggedTransferBody {
        transfer_id: id,
        state: TransferStateWord::Logged,
        from_user_uuid: sender.as_str(),
        to_user_uuid: first.user.as_str(),
        ap: grants.iter().map(|grant| grant.granted).sum(),
        grants: grants.iter().map(|grant| GrantBody::new(grant, gate.now())).collect(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

impl From<TransferState> for TransferStateWord {
    fn from(state: TransferState) -> Self {
        match state {
            TransferState::Accepted => Self::Accepted,
            TransferState::Logged => Self::Logged,
        }
    }
}
