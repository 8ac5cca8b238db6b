//! `POST /api/{meter}/quota/reservations`, and a reservation's commit, release and extend.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::answers::quota::{PassedWord, QuotaBody, QuotaExceeded};
use crate::http::{
    answers::{
        headers::rate_limit,
        problem::Problem,
        refusals::{Refused, RefusedBody, RefusedMessage, UnknownReservation},
        remedies::Shop,
        time::Millis,
    },
    auth::Service,
    extract::{Body, IdempotencyHeader, ReservationId},
    meter::MeterSettings,
    token_counts::TokenCounts,
};
use crate::reloadable::Reloadable;
use quota_gate::{
    domain::{
        ap::Ap,
        decision::{Decision, Passed, Reserved, Settled},
        level::Levels,
        model_costs::ModelCosts,
        model_name::ModelName,
        remedy::Asked,
        user_id::{SessionId, UserId},
    },
    gate::{Commit, Gate, Reserve},
};

/// A message to hold AP for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReserveBody {
    #[schema(example = "0f8fad5b-d9cb-469f-a165-70867728950e", pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    user_uuid: String,
    /// Id of the conversation.
    #[schema(example = "chat-42", min_length = 1, max_length = 128)]
    session_id: String,
    /// Maximum cost of the message in AP; 1 by default.
    #[schema(minimum = 1, maximum = 1_000_000)]
    ap: Option<i64>,
    /// Time to hold the AP, in seconds; 60 by default. At most 900 for the chat, and `hold_seconds_max` of another
    /// meter.
    #[schema(minimum = 1, maximum = 86_400)]
    ttl_seconds: Option<i64>,
}

/// The generated answer to charge.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CommitBody {
    /// Actual cost in AP. By default the cost of the tokens, if their kinds are given and `model` has prices by tokens;
    /// otherwise all held AP.
    #[schema(minimum = 1, maximum = 1_000_000)]
    ap: Option<i64>,
    /// Tokens counted by the model; with the kinds below, their sum.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    tokens: Option<i64>,
    /// Input tokens, including cached ones.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    input_tokens: Option<i64>,
    /// The part of the input tokens that the model had cached.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    cached_input_tokens: Option<i64>,
    /// Output tokens.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    output_tokens: Option<i64>,
    /// Model that generated the answer, for the usage log.
    #[schema(example = "gpt-4o", min_length = 1, max_length = 128)]
    model: Option<String>,
}

/// An extension of a hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtendBody {
    /// From now; 60 by default, with the same maximum. An extension never shortens a hold.
    #[schema(minimum = 1, maximum = 86_400)]
    ttl_seconds: Option<i64>,
}

/// AP held for a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReservationBody<'a> {
    /// Current id of the reservation; null if the rollout passed the message: there is nothing to settle.
    #[schema(required = true)]
    reservation_id: Option<String>,
    /// Held AP.
    ap: u32,
    /// When the AP is given back automatically; null if nothing is held.
    #[schema(value_type = Option<String>, required = true)]
    expires_at: Option<Millis>,
    /// True for the answer to an earlier request with the same Idempotency-Key, with the numbers of that time.
    replayed: bool,
    /// True if Redis is unavailable: nothing is held; Postgres' numbers allowed the message.
    degraded: bool,
    /// Why the rollout passed the message with nothing held; null if the gate decided.
    #[schema(required = true)]
    passed: Option<PassedWord>,
    /// Null if no store was queried.
    #[schema(required = true)]
    quota: Option<QuotaBody<'a>>,
}

/// A committed reservation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommittedBody<'a> {
    /// Charged AP.
    charged: u32,
    /// AP that the quota no longer covers: recorded, never charged.
    overage: u32,
    /// True if it had expired: only AP still free was charged.
    late: bool,
    /// True if it was already committed.
    replayed: bool,
    quota: QuotaBody<'a>,
}

/// A released reservation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReleasedBody<'a> {
    /// True if it was already released, or ended long ago.
    pub(crate) replayed: bool,
    pub(crate) quota: QuotaBody<'a>,
}

/// A settlement that is applied when Redis is available again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcceptedBody {
    /// Always true: the settlement will be applied once.
    accepted: bool,
}

/// Holds AP for a message if the user's quota covers it.
#[utoipa::path(
    post, path = "/api/chat/quota/reservations", tag = "messages", operation_id = "reserve",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat")),
    request_body = ReserveBody,
    responses(
        (status = 200, description = "Passed by the rollout: nothing is held", body = ReservationBody<'_>),
        (status = 201, description = "Held", body = ReservationBody<'_>),
        (status = 409, description = "CONFLICT: too many live reservations", body = Problem, content_type = "application/problem+json"),
        RefusedMessage,
        Refused,
        RefusedBody,
    ),
    security(("service" = [])),
)]
pub(crate) async fn reserve(
    _: Service,
    State(gate): State<Gate>,
    State(meter): State<Arc<MeterSettings>>,
    State(shop): State<Shop>,
    IdempotencyHeader(idempotency_key): IdempotencyHeader,
    Body(body): Body<ReserveBody>,
) -> Result<Response, Problem> {
    let request = Reserve {
        user: UserId::parse(&body.user_uuid)?,
        session: SessionId::parse(&body.session_id)?,
        ap: meter.cost(body.ap)?,
        ttl: meter.ttl(body.ttl_seconds)?,
        idempotency_key,
    };
    let decision = gate.reserve(request).await?;
    let levels = gate.levels();
    match decision {
        Decision::Allowed(reserved) => {
            let id = gate.reservation_id(&reserved.reservation);
            let location = meter.path(&format!("/reservations/{id}"));
            let body = ReservationBody::new(&gate, &levels, &reserved, id);
            let headers = rate_limit(&reserved.quota, gate.calendar());
            Ok((StatusCode::CREATED, [(header::LOCATION, location)], headers, Json(body)).into_response())
        }
        Decision::Denied(denied) => {
            let remedies = shop.remedies(&gate, &denied, Asked::default());
            Ok(QuotaExceeded::response(&gate, &denied, remedies))
        }
        Decision::Passed(passed) => Ok(Json(ReservationBody::passed(&gate, &levels, &passed)).into_response()),
    }
}

/// Charges what was generated and gives the rest back. Safe to repeat.
#[utoipa::path(
    post, path = "/api/chat/quota/reservations/{id}/commit", tag = "messages", operation_id = "commit",
    params(("id" = String, Path, description = "The reservationId")),
    request_body = CommitBody,
    responses(
        (status = 200, description = "Charged", body = CommittedBody<'_>),
        (status = 202, description = "Redis is unavailable: the commit is applied later, once", body = AcceptedBody),
        UnknownReservation,
        (status = 409, description = "CONFLICT: already released", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "RESERVATION_EXPIRED: nothing was charged", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "MISMATCH: already committed with another cost", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("service" = [])),
)]
pub(crate) async fn commit(
    _: Service,
    State(gate): State<Gate>,
    State(costs): State<Reloadable<ModelCosts>>,
    ReservationId(id): ReservationId,
    Body(body): Body<CommitBody>,
) -> Result<Response, Problem> {
    let tokens = body.counts().tokens()?;
    let model = body.model.as_deref().map(ModelName::parse).transpose()?;
    let by_tokens = || Some(costs.get().by_tokens(model.as_ref())?.cost(tokens.kinds()?));
    let ap = body.ap.map_or_else(|| Ok(by_tokens()), |ap| Ap::cost(ap).map(Some))?;
    let commit = Commit { ap, tokens, model };
    let Settled::Now(committed) = gate.commit(&id, commit).await? else { return Ok(accepted()) };
    let levels = gate.levels();
    let body = CommittedBody {
        charged: committed.charged.get(),
        overage: committed.overage.get(),
        late: committed.late,
        replayed: committed.replayed,
        quota: QuotaBody::new(&gate, &levels, &committed.quota),
    };
    Ok((rate_limit(&committed.quota, gate.calendar()), Json(body)).into_response())
}

/// Gives the AP back because nothing was generated. Safe to repeat.
#[utoipa::path(
    post, path = "/api/chat/quota/reservations/{id}/release", tag = "messages", operation_id = "release",
    params(("id" = String, Path, description = "The reservationId")),
    responses(
        (status = 200, description = "Given back", body = ReleasedBody<'_>),
        (status = 202, description = "Redis is unavailable: the AP is given back later", body = AcceptedBody),
        UnknownReservation,
        (status = 409, description = "CONFLICT: already committed", body = Problem, content_type = "application/problem+json"),
        Refused,
    ),
    security(("service" = [])),
)]
pub(crate) async fn release(
    _: Service,
    State(gate): State<Gate>,
    ReservationId(id): ReservationId,
) -> Result<Response, Problem> {
    let Settled::Now(released) = gate.release(&id).await? else { return Ok(accepted()) };
    let levels = gate.levels();
    let body = ReleasedBody { replayed: released.replayed, quota: QuotaBody::new(&gate, &levels, &released.quota) };
    Ok((rate_limit(&released.quota, gate.calendar()), Json(body)).into_response())
}

/// Extends a hold while its message is generated. The answer has a new reservationId to use from now on.
#[utoipa::path(
    post, path = "/api/chat/quota/reservations/{id}/extend", tag = "messages", operation_id = "extend",
    params(("id" = String, Path, description = "The reservationId")),
    request_body = ExtendBody,
    responses(
        (status = 200, description = "Extended", body = ReservationBody<'_>),
        UnknownReservation,
        (status = 409, description = "CONFLICT: already settled", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "RESERVATION_EXPIRED: it can still be committed", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedBody,
    ),
    security(("service" = [])),
)]
pub(crate) async fn extend(
    _: Service,
    State(gate): State<Gate>,
    State(meter): State<Arc<MeterSettings>>,
    ReservationId(id): ReservationId,
    Body(body): Body<ExtendBody>,
) -> Result<Response, Problem> {
    let reserved = gate.extend(&id, meter.ttl(body.ttl_seconds)?).await?;
    let id = gate.reservation_id(&reserved.reservation);
    let levels = gate.levels();
    let body = ReservationBody::new(&gate, &levels, &reserved, id);
    Ok((rate_limit(&reserved.quota, gate.calendar()), Json(body)).into_response())
}

impl CommitBody {
    const fn counts(&self) -> TokenCounts {
        TokenCounts {
            tokens: self.tokens,
            input: self.input_tokens,
            cached_input: self.cached_input_tokens,
            output: self.output_tokens,
        }
    }
}

impl<'a> ReservationBody<'a> {
    fn new(gate: &Gate, levels: &'a Levels, reserved: &'a Reserved, id: String) -> Self {
        Self {
            reservation_id: Some(id),
            ap: reserved.reservation.ap.get(),
            expires_at: Some(Millis(reserved.reservation.expires_at)),
            replayed: reserved.replayed,
            degraded: reserved.degraded,
            passed: None,
            quota: Some(QuotaBody::new(gate, levels, &reserved.quota)),
        }
    }

    fn passed(gate: &Gate, levels: &'a Levels, passed: &'a Passed) -> Self {
        Self {
            reservation_id: None,
            ap: 0,
            expires_at: None,
            replayed: false,
            degraded: false,
            passed: Some(passed.into()),
            quota: passed.quota().map(|quota| QuotaBody::new(gate, levels, quota)),
        }
    }
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(AcceptedBody { accepted: true })).into_response()
}
