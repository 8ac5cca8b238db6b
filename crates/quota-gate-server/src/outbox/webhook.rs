//! The product's webhook: `POST url`, signed. Any 2xx accepts a notification.
//!
//! `Quota-Gate-Signature: t=<seconds>,v1=<hex>` is HMAC-SHA-256 over `<seconds>.<body>`, as Stripe signs
//! (<https://docs.stripe.com/webhooks#verify-manually>). `Idempotency-Key` is the notification's id, the same at
//! every try.

use std::time::Duration;

use axum::http::{Method, Request, header};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use serde_json::json;
use sha2::Sha256;
use tokio::time::timeout;

use crate::{
    hex,
    outbound::{Client, base_url, client, describe},
};
use quota_gate::{
    domain::{InvalidInput, calendar::Period},
    store::postgres::Notification,
};

/// A shorter secret could be guessed.
const SECRET_BYTES_MIN: usize = 32;

/// Address, secret and timeout of the webhook.
#[derive(Debug, Clone, Copy)]
pub struct WebhookOptions<'a> {
    /// URL to which notifications are posted.
    pub url: &'a str,
    /// Secret that signs notifications.
    pub secret: &'a str,
    /// Time limit for one request.
    pub timeout: Duration,
}

/// A client for the product's webhook. Cheap to clone.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    url: String,
    secret: Hmac<Sha256>,
    timeout: Duration,
}

impl Webhook {
    /// Checks the options. Sends nothing yet.
    ///
    /// # Errors
    /// If the URL is invalid, or the secret is shorter than 32 bytes.
    pub fn new(options: &WebhookOptions<'_>) -> Result<Self, InvalidInput> {
        let invalid = |field: &'static str| move |rule: String| InvalidInput { field, rule };
        if options.secret.len() < SECRET_BYTES_MIN {
            return Err(invalid("webhooks.secret")(format!(
                "must have at least {SECRET_BYTES_MIN} bytes: `openssl rand -hex 32` makes one"
            )));
        }
        let secret = Hmac::new_from_slice(options.secret.as_bytes())
            .map_err(|error| invalid("webhooks.secret")(error.to_string()))?;
        let client = client(options.timeout).map_err(|error| invalid("webhooks.url")(error.to_string()))?;
        let url = base_url(options.url).map_err(invalid("webhooks.url"))?;
        Ok(Self { client, url, secret, timeout: options.timeout })
    }

    /// Sends a notification. Repeating this is harmless for a receiver that checks the id.
    ///
    /// # Errors
    /// With a human-readable reason.
    pub async fn post(&self, notification: &Notification, now: DateTime<Utc>) -> Result<(), String> {
        let body = body_of(notification);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", notification.id.to_string())
            .header("quota-gate-signature", self.signature(now.timestamp(), &body))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = timeout(self.timeout, self.client.request(request)).await;
        let answer = answer.map_err(|_| format!("no answer within {:?}", self.timeout))?;
        match answer.map_err(|error| describe(&error))?.status().as_u16() {
            200..300 => Ok(()),
            status => Err(format!("status {status}")),
        }
    }

    fn signature(&self, seconds: i64, body: &str) -> String {
        let mac = self.secret.clone().chain_update(format!("{seconds}.{body}")).finalize().into_bytes();
        format!("t={seconds},v1={}", hex::encode(&mac))
    }
}

fn body_of(notification: &Notification) -> String {
    let period = u32::try_from(notification.period).ok().and_then(|id| Period::from_id(id).ok());
    json!({
        "id": notification.id,
        "type": notification.kind,
        "createdAt": notification.created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        "userUuid": notification.user,
        "period": period.map(|period| period.to_string()),
        "membershipLevel": notification.level,
        "previousLevel": notification.previous,
        "pendingLevel": notification.pending,
        "monthlyQuota": notification.quota,
        "monthlyUsed": notification.used,
    })
    .to_string()
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}
