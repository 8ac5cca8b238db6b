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
use sha2::Sha256;
use utoipa::ToSchema;

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
        user_id::UserId,
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
    user_key: String,
    levels: PriceLevels,
}

impl Billing {
    /// Accepts events signed with `secret`, whose subscriptions name the user under `user_key` in their metadata.
    ///
    /// # Errors
    /// If the secret is invalid.
    pub fn new(secret: &str, user_key: String, levels: PriceLevels) -> Result<Self, InvalidInput> {
        let secret = Hmac::new_from_slice(secret.as_bytes())
            .map_err(|error| InvalidInput { field: "billing.webhook_secret", rule: error.to_string() })?;
        Ok(Self { secret, user_key, levels })
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
    object: serde_json::Value,
}

#[derive(Deserialize)]
struct Subscription {
    id: String,
    status: String,
    #[serde(default)]
    metadata: std::collections::BTreeMap<String, String>,
    items: Items,
}

#[derive(Deserialize)]
struct Items {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    price: Price,
}

#[derive(Deserialize)]
struct Price {
    id: String,
    product: Option<String>,
}

/// The result of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionReceivedBody {
    /// Whether the event changes the user's level, now or at the next period. False for repeated and unrelated events.
    changed: bool,
}

/// Receives a signed billing event. Events may repeat or be late: the newest of each subscription counts.
///
/// `POST /api/webhooks/subscription` is an older alias.
#[utoipa::path(
    post, path = "/api/billing/subscription", tag = "billing", operation_id = "subscriptionEvent",
    params(("Stripe-Signature" = String, Header, description = "t=…,v1=…")),
    request_body(content = serde_json::Value, description = "A Stripe event; `customer.subscription.*` are processed, others are accepted and ignored"),
    responses(
        (status = 200, description = "Accepted", body = SubscriptionReceivedBody),
        (status = 401, description = "UNAUTHENTICATED: the signature is invalid or too old", body = Problem, content_type = "application/problem+json"),
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
    if !event.kind.starts_with("customer.subscription.") {
        return Ok(Json(SubscriptionReceivedBody { changed: false }).into_response());
    }
    let subscription: Subscription = serde_json::from_value(event.data.object).map_err(invalid)?;
    let event = subscription_event(billing, event.id, &event.kind, event.created, subscription)?;
    let changed = gate.apply_subscription(&event, &billing.levels).await?;
    tracing::info!(event = event.id, subscription = event.subscription, changed, "received a subscription event");
    Ok(Json(SubscriptionReceivedBody { changed }).into_response())
}

fn subscription_event(
    billing: &Billing,
    id: String,
    kind: &str,
    created: i64,
    subscription: Subscription,
) -> Result<SubscriptionEvent, Problem> {
    let invalid = |rule: String| Problem::new(Code::InvalidRequest, rule);
    let user = subscription.metadata.get(&billing.user_key);
    let user = user.ok_or_else(|| invalid(format!("the subscription's metadata has no {}", billing.user_key)))?;
    for id in [&id, &subscription.id] {
        if !(1..=ID_BYTES_MAX).contains(&id.len()) || id.chars().any(char::is_control) {
            return Err(invalid("an id is empty, longer than 255 bytes, or contains a control character".into()));
        }
    }
    let items = subscription.items.data.into_iter().flat_map(|item| [Some(item.price.id), item.price.product]);
    Ok(SubscriptionEvent {
        id,
        user: UserId::parse(user)?,
        at: DateTime::from_timestamp(created, 0).ok_or_else(|| invalid("created is not a valid time".into()))?,
        // The billing system grants an overdue subscription a grace period, then ends it.
        is_live: kind != "customer.subscription.deleted"
            && matches!(subscription.status.as_str(), "active" | "trialing" | "past_due"),
        subscription: subscription.id,
        items: items.flatten().collect(),
    })
}
