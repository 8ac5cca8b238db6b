//! The old credits system, over HTTP: it receives charges and reports users' usage.
//!
//! `POST url` with `Idempotency-Key` and JSON delivers a charge: any 2xx accepts it, 409 means that the system already
//! has it. `GET url?userUuid=…&period=…` answers `{"used": 17}`.

use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, header};
use bytes::Bytes;
use chrono::SecondsFormat;
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::outbound::{Client, base_url, bearer, client, describe};
use quota_gate::{
    domain::{InvalidInput, calendar::Period, user_id::UserId},
    store::postgres::DualWrite,
};

/// Maximum length of an answer. Valid answers are shorter.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Address, token and timeout of the old credits system.
#[derive(Debug, Clone, Copy)]
pub struct OldCreditsOptions<'a> {
    /// URL to which charges are posted.
    pub url: &'a str,
    /// Bearer token; empty for none.
    pub token: &'a str,
    /// Time limit for one request.
    pub timeout: Duration,
}

/// A client for the old credits system. Cheap to clone.
#[derive(Clone)]
pub struct OldCredits {
    client: Client,
    url: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Balance {
    used: i64,
}

impl OldCredits {
    /// Checks the options. Sends nothing yet.
    ///
    /// # Errors
    /// If the URL is invalid, or the token is not a valid header value.
    pub fn new(options: &OldCreditsOptions<'_>) -> Result<Self, InvalidInput> {
        let invalid = |field: &'static str| move |rule: String| InvalidInput { field, rule };
        let client = client(options.timeout).map_err(|error| invalid("dual_write.url")(error.to_string()))?;
        let url = base_url(options.url).map_err(invalid("dual_write.url"))?;
        let authorization = match options.token {
            "" => None,
            token => Some(bearer(token).map_err(invalid("dual_write.token"))?),
        };
        Ok(Self { client, url, authorization, timeout: options.timeout })
    }

    /// Delivers a charge. Repeating this is harmless: the system recognizes the event by its id.
    ///
    /// # Errors
    /// With a human-readable reason.
    pub async fn post(&self, charge: &DualWrite) -> Result<(), String> {
        let event = charge.event.to_string();
        let body = json!({
            "eventId": event,
            "userUuid": charge.user,
            "sessionId": charge.session,
            "ap": charge.ap,
            "tokens": charge.tokens,
            "chargedAt": charge.charged_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", event)
            .body(Full::new(Bytes::from(body.to_string())));
        match self.send(request).await? {
            (200..300 | 409, _) => Ok(()),
            (status, _) => Err(format!("status {status}")),
        }
    }

    /// Returns the AP that a user has used in a period, according to the system.
    ///
    /// # Errors
    /// With a human-readable reason.
    pub async fn used(&self, user: &UserId, period: Period) -> Result<i64, String> {
        let uri = format!("{}?userUuid={user}&period={period}", self.url);
        let request = Request::builder().method(Method::GET).uri(uri).body(Full::default());
        match self.send(request).await? {
            (200..300, body) => {
                let balance: Balance = serde_json::from_slice(&body).map_err(|error| format!("malformed: {error}"))?;
                Ok(balance.used)
            }
            (404, _) => Ok(0),
            (status, _) => Err(format!("status {status}")),
        }
    }

    async fn send(&self, request: Result<Request<Full<Bytes>>, axum::http::Error>) -> Result<(u16, Bytes), String> {
        let mut request = request.map_err(|error| error.to_string())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| describe(&error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        timeout(self.timeout, exchange).await.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)))
    }
}

impl std::fmt::Debug for OldCredits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OldCredits").field("url", &self.url).finish_non_exhaustive()
    }
}
