//! `POST /api/{meter}/quota/consume`: check and charge in one step.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::answers::quota::{PassedWord, QuotaBody, QuotaExceeded};
use crate::http::{
    answers::{
        headers::rate_limit,
        problem::{Code, Problem},
        refusals::{Refused, RefusedBody, RefusedMessage},
        remedies::Shop,
    },
    auth::Service,
    extract::{Body, IdempotencyHeader},
    meter::MeterSettings,
    model_access::require_allowed,
    token_counts::TokenCounts,
};
use quota_gate::{
    domain::{
        decision::{Decision, Passed},
        level::Levels,
        model_name::ModelName,
        remedy::Asked,
        user_id::{SessionId, UserId},
    },
    gate::{Consume, Gate},
};

/// A message to charge.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConsumeBody {
    #[schema(example = "0f8fad5b-d9cb-469f-a165-70867728950e", pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    user_uuid: String,
    /// Id of the conversation.
    #[schema(example = "chat-42", min_length = 1, max_length = 128)]
    session_id: String,
    /// Cost of the message in AP. By default the cost of its tokens, if `model` has prices by tokens; otherwise 1,
    /// or the meter's default cost.
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

/// A message that was charged or passed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConsumedBody<'a> {
    /// Always true: a denial is a 429.
    allowed: bool,
    /// Id of the usage event; null if the rollout passed the message.
    #[schema(value_type = Option<String>, required = true)]
    usage_id: Option<Uuid>,
    /// Charged AP.
    charged: u32,
    /// True for the answer to an earlier request with the same Idempotency-Key, with the numbers of that time.
    replayed: bool,
    /// True if Redis is unavailable: Postgres' numbers allowed the message; it is charged later.
    degraded: bool,
    /// Why the rollout passed it uncharged; null if it was charged.
    #[schema(required = true)]
    passed: Option<PassedWord>,
    /// Null if no store was queried.
    #[schema(required = true)]
    quota: Option<QuotaBody<'a>>,
}

/// Charges a message if the user's quota covers it.
#[utoipa::path(
    post, path = "/api/chat/quota/consume", tag = "messages", operation_id = "consume",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat")),
    request_body = ConsumeBody,
    responses(
        (status = 200, description = "Charged, or passed by the rollout", body = ConsumedBody<'_>),
        RefusedMessage,
        Refused,
        RefusedBody,
    ),
    security(("service" = [])),
)]
pub(crate) async fn consume(
    _: Service,
    State(gate): State<Gate>,
    State(shop): State<Shop>,
    State(meter): State<Arc<MeterSettings>>,
    IdempotencyHeader(idempotency_key): IdempotencyHeader,
    Body(body): Body<ConsumeBody>,
) -> Result<Response, Problem> {
    let tokens = body.counts().tokens()?;
    let model = body.model.as_deref().map(ModelName::parse).transpose()?;
    let costs = shop.costs().get();
    let ap = match (body.ap, costs.by_tokens(model.as_ref())) {
        (None, Some(prices)) => prices.cost(tokens.kinds().ok_or_else(no_token_counts)?),
        (ap, _) => meter.cost(ap)?,
    };
    let user = UserId::parse(&body.user_uuid)?;
    let session = SessionId::parse(&body.session_id)?;
    require_allowed(&gate, &costs, &user, model.as_ref().map(ModelName::as_str)).await?;
    let request = Consume { user, session, ap, tokens, model, idempotency_key };
    let decision = gate.consume(request).await?;
    let levels = gate.levels();
    match decision {
        Decision::Allowed(charged) => {
            let body = ConsumedBody {
                allowed: true,
                usage_id: Some(charged.event),
                charged: charged.ap.get(),
                replayed: charged.replayed,
                degraded: charged.degraded,
                passed: None,
                quota: Some(QuotaBody::new(&gate, &levels, &charged.quota)),
            };
            Ok((rate_limit(&charged.quota, gate.calendar()), Json(body)).into_response())
        }
        Decision::Denied(denied) => {
            let asked = Asked { models: body.model.as_slice(), priced_answers: None };
            let remedies = shop.remedies(&gate, &denied, asked);
            Ok(QuotaExceeded::response(&gate, &denied, remedies))
        }
        Decision::Passed(passed) => Ok(Json(ConsumedBody::passed(&gate, &levels, &passed)).into_response()),
    }
}

/// Refuses a message without a cost and tokens, to a model with prices by tokens.
fn no_token_counts() -> Problem {
    let detail = "the model has prices by tokens: send inputTokens and outputTokens, or the cost in `ap`";
    Problem::new(Code::InvalidRequest, detail)
}

impl ConsumeBody {
    const fn counts(&self) -> TokenCounts {
        TokenCounts {
            tokens: self.tokens,
            input: self.input_tokens,
            cached_input: self.cached_input_tokens,
            output: self.output_tokens,
        }
    }
}

impl<'a> ConsumedBody<'a> {
    fn passed(gate: &Gate, levels: &'a Levels, passed: &'a Passed) -> Self {
        Self {
            allowed: true,
            usage_id: None,
            charged: 0,
            replayed: false,
            degraded: false,
            passed: Some(passed.into()),
            quota: passed.quota().map(|quota| QuotaBody::new(gate, levels, quota)),
        }
    }
}
