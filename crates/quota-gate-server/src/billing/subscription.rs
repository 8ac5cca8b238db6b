//! `POST /api/billing/subscription`, alias `/api/webhooks/subscription`: receives events of a billing system, in
//! Stripe's format and signature scheme (<https://docs.stripe.com/webhooks#verify-manually>,
//! <https://docs.stripe.com/api/subscriptions/object>).

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::Sha256;
use utoipa::ToSchema;

use super::{
    checkout::{self, MetadataKeys},
    packs::Packs,
    refund,
    terms::{self, TermsReader},
};
use crate::{
    hex,
    http::{
        answers::{
            problem::{Code, Problem},
            refusals::RefusedBody,
        },
        state::AppState,
    },
};
use quota_gate::{
    domain::{
        InvalidInput,
        subscription::{PriceLevels, SubscriptionEvent},
    },
    gate::Gate,
};

/// Longest time between signature and receipt, either way. Beyond it, a signed event counts as a replay.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// Maximum length of a stored id.
const ID_BYTES_MAX: usize = 255;
/// Enough for an event with its items, metadata and texts.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;

/// Settings to verify and interpret events.
pub struct Billing {
    secret: Hmac<Sha256>,
    terms: TermsReader,
    levels: PriceLevels,
    packs: PackRules,
}

/// What users can buy, and what becomes of it.
#[derive(Debug)]
pub struct PackRules {
    /// The packs.
    pub packs: Packs,
    /// Metadata key under which a checkout names its pack.
    pub metadata_key: String,
    /// Whether packs are voided when no subscription of their user pays any more.
    pub need_plan: bool,
}

impl Billing {
    /// Accepts events signed with `secret`.
    ///
    /// # Errors
    /// If the secret is invalid.
    pub fn new(secret: &str, terms: TermsReader, levels: PriceLevels, packs: PackRules) -> Result<Self, InvalidInput> {
        let secret = Hmac::new_from_slice(secret.as_bytes())
            .map_err(|error| InvalidInput { field: "billing.webhook_secret", rule: error.to_string() })?;
        Ok(Self { secret, terms, levels, packs })
    }

    /// Whether one of the header's signatures matches the body and is recent.
    fn is_signed(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> bool {
        let header = headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let Some(time) = parts().find(|(name, _)| *name == "t").map(|(_, time)| time) else { return false };
        let at = time.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        if at.is_none_or(|at| (now - at).abs() > TOLERANCE) {
            return false;
        }
        let expected = self.secret.clone().chain_update(time.as_bytes()).chain_update(b".").chain_update(body);
        parts()
            .filter(|(name, _)| *name == "v1")
            .filter_map(|(_, signature)| hex::decode(signature))
            .any(|signature| expected.clone().verify_slice(&signature).is_ok())
    }
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Value,
    /// The changed members of the object, as they were before. Only in events that report a change.
    #[serde(default)]
    previous_attributes: Option<Map<String, Value>>,
}

/// The result of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionReceivedBody {
    /// Whether the event changes the user's level, now or at the next period, or the user's packs. False for repeated
    /// and unrelated events.
    changed: bool,
}

/// Receives a signed billing event. Events may repeat or be late: each counts once, and the order of delivery does not
/// matter.
///
/// `POST /api/webhooks/subscription` is an older alias.
#[utoipa::path(
    post, path = "/api/billing/subscription", tag = "billing", operation_id = "subscriptionEvent",
    params(("Stripe-Signature" = String, Header, description = "t=…,v1=…")),
    request_body(content = serde_json::Value, description = "A Stripe event; `customer.subscription.*`, and with [billing.packs] paid checkouts, refunds and disputes, are processed; others are accepted and ignored"),
    responses(
        (status = 200, description = "Accepted", body = SubscriptionReceivedBody),
        (status = 401, description = "UNAUTHENTICATED: the signature is invalid or too old", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "CONFLICT: the user has 32 live grants; send the event again later", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "NOT_FOUND: billing.webhook_secret is not set", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "QUOTA_UNAVAILABLE: send the event again", body = Problem, content_type = "application/problem+json"),
        RefusedBody,
    ),
)]
pub(crate) async fn receive(
    State(state): State<AppState>,
    State(gate): State<Gate>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let billing: &Arc<Billing> = state.billing()?;
    if !billing.is_signed(&headers, &body, gate.now()) {
        return Err(Problem::new(Code::Unauthenticated, "the signature is invalid, or older than five minutes"));
    }
    let invalid = |error: serde_json::Error| Problem::new(Code::InvalidRequest, error.to_string());
    let event: Event = serde_json::from_slice(&body).map_err(invalid)?;
    let changed = apply(&gate, billing, event).await?;
    Ok(Json(SubscriptionReceivedBody { changed }).into_response())
}

async fn apply(gate: &Gate, billing: &Billing, event: Event) -> Result<bool, Problem> {
    if event.kind.starts_with("customer.subscription.") {
        let event = subscription_event(billing, event)?;
        let changed = gate.apply_subscription(&event, &billing.levels, billing.packs.need_plan).await?;
        tracing::info!(event = event.id, subscription = event.subscription, changed, "received a subscription event");
        return Ok(changed);
    }
    // Without packs, payments are for something else.
    if billing.packs.packs.is_empty() {
        return Ok(false);
    }
    if matches!(event.kind.as_str(), "checkout.session.completed" | "checkout.session.async_payment_succeeded") {
        let keys = MetadataKeys { user: billing.terms.user_key().to_owned(), pack: billing.packs.metadata_key.clone() };
        let Some(purchase) = checkout::read(&event.data.object, &billing.packs.packs, &keys)? else { return Ok(false) };
        check_ids([&event.id, &purchase.checkout].into_iter().chain(&purchase.payment))?;
        let changed = gate.buy_packs(&purchase).await?;
        tracing::info!(event = event.id, checkout = purchase.checkout, changed, "received a purchase of packs");
        return Ok(changed);
    }
    if refund::is_about(&event.kind) {
        let Some(refund) = refund::read(&event.id, &event.kind, &event.data.object)? else { return Ok(false) };
        check_ids([&refund.event, &refund.payment])?;
        let changed = gate.take_back_payment(&refund).await?;
        tracing::info!(event = event.id, payment = refund.payment, changed, "received a refund or a dispute");
        return Ok(changed);
    }
    Ok(false)
}

/// Checks ids that are stored.
fn check_ids<'a>(ids: impl IntoIterator<Item = &'a String>) -> Result<(), Problem> {
    let is_invalid = |id: &String| !(1..=ID_BYTES_MAX).contains(&id.len()) || id.chars().any(char::is_control);
    if ids.into_iter().any(is_invalid) {
        let rule = "an id is empty, longer than 255 bytes, or contains a control character";
        return Err(Problem::new(Code::InvalidRequest, rule));
    }
    Ok(())
}

fn subscription_event(billing: &Billing, event: Event) -> Result<SubscriptionEvent, Problem> {
    let invalid = |rule: &str| Problem::new(Code::InvalidRequest, rule.to_owned());
    let read = billing.terms.read(&event.kind, &event.data.object)?;
    check_ids([&event.id, &read.subscription])?;
    let previous = event.data.previous_attributes;
    let before = previous.map(|previous| terms::before(&event.data.object, previous));
    Ok(SubscriptionEvent {
        id: event.id,
        subscription: read.subscription,
        at: DateTime::from_timestamp(event.created, 0).ok_or_else(|| invalid("created is not a valid time"))?,
        stage: read.stage,
        terms: read.terms,
        paid_time: read.paid_time,
        terms_before: before.and_then(|before| billing.terms.read(&event.kind, &before).ok()).map(|read| read.terms),
    })
}
