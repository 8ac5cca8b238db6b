//! The client for the upstream: which headers it forwards, and its timeouts.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header},
};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    http::answers::problem::{Code, Problem},
    outbound::{Client, base_url, bearer, client, describe},
};
use quota_gate::domain::InvalidInput;

/// Request headers that are forwarded. All others are dropped: credentials, cookies, user names, addresses, and
/// headers of one connection (RFC 9110, section 7.6.1).
const TO_UPSTREAM: [HeaderName; 7] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// Response headers that are forwarded. Cookies and the limits of the operator's account are not for the client.
const TO_CLIENT: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("openai-processing-ms"),
    HeaderName::from_static("openai-version"),
];

/// Headers in which upstreams name a request in their logs; the first one counts.
const REQUEST_IDS: [&str; 4] = ["x-request-id", "request-id", "apim-request-id", "x-amzn-requestid"];
/// Header in which the client gets that name. `x-request-id` is the gate's own.
const X_UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// How the gate learns how many tokens a stream used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamUsage {
    /// It requests a report, and hides it from clients that did not.
    Ask,
    /// It changes no request, and reads what the upstream reports unasked.
    Leave,
}

/// Address, key and timeouts of the upstream.
#[derive(Debug, Clone)]
pub struct UpstreamOptions<'a> {
    /// The API's base URL, including `/v1`.
    pub url: &'a str,
    /// The operator's key.
    pub key: &'a str,
    /// Time to wait for a connection.
    pub connect_timeout: Duration,
    /// Time to wait for the head of an answer.
    pub head_timeout: Duration,
    /// Time to wait for the next piece of an answer.
    pub idle_timeout: Duration,
    /// Whether to request usage reports.
    pub stream_usage: StreamUsage,
}

/// A client for an OpenAI-compatible API, with a connection pool.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    base: String,
    authorization: HeaderValue,
    head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) stream_usage: StreamUsage,
}

impl Upstream {
    /// Checks the options. Sends nothing yet.
    ///
    /// # Errors
    /// If the URL is invalid, or the key is not a valid header value.
    pub fn new(options: &UpstreamOptions<'_>) -> Result<Self, InvalidInput> {
        let invalid = |field: &'static str| move |rule: String| InvalidInput { field, rule };
        let client = client(options.connect_timeout).map_err(|error| invalid("upstream.url")(error.to_string()))?;
        Ok(Self {
            client,
            base: base_url(options.url).map_err(invalid("upstream.url"))?,
            authorization: bearer(options.key).map_err(invalid("upstream.key"))?,
            head_timeout: options.head_timeout,
            idle_timeout: options.idle_timeout,
            stream_usage: options.stream_usage,
        })
    }

    /// Sends a request to the upstream. Returns only the headers that are forwarded, and the unread body.
    pub(crate) async fn send(
        &self,
        (method, path): (Method, &str),
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Problem> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| Problem::new(Code::NotFound, "the upstream has no such path"))?;
        *request.headers_mut() = select(headers, &TO_UPSTREAM);
        // The gate cannot read a compressed body.
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        let result = timeout(self.head_timeout, self.client.request(request)).await;
        let response = match result {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                count("unreachable");
                tracing::warn!(error = describe(&error), "cannot reach the upstream");
                return Err(Problem::new(Code::UpstreamFailed, "the model cannot be reached; nothing was charged"));
            }
            Err(_) => {
                count("timeout");
                return Err(Problem::new(Code::UpstreamTimeout, "the model does not answer; nothing was charged"));
            }
        };
        // The upstream refuses the operator's key. The client would take a 401 to be about its own.
        if response.status() == StatusCode::UNAUTHORIZED {
            count("key_refused");
            tracing::error!("the upstream refuses the key in upstream.key");
            return Err(Problem::upstream_unusable("the model refuses the gate's key; nothing was charged"));
        }
        count(if response.status().is_success() { "answered" } else { "refused" });
        let (mut parts, body) = response.into_parts();
        let id = REQUEST_IDS.iter().find_map(|name| parts.headers.remove(*name));
        parts.headers = select(&parts.headers, &TO_CLIENT);
        if let Some(id) = id {
            tracing::debug!(upstream_request_id = id.to_str().unwrap_or_default(), "the upstream answers");
            parts.headers.insert(X_UPSTREAM_REQUEST_ID, id);
        }
        parts.extensions.clear();
        Ok(Response::from_parts(parts, body))
    }
}

/// Passes a response through with its body unread.
pub(crate) fn pass_through(response: Response<Incoming>) -> Response<Body> {
    response.map(Body::new)
}

/// Copies the headers with these names.
fn select(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut selected = HeaderMap::with_capacity(names.len() + 2);
    for name in names {
        if let Some(value) = headers.get(name) {
            selected.insert(name, value.clone());
        }
    }
    selected
}

fn count(outcome: &'static str) {
    metrics::counter!("quota_gate_upstream_requests_total", "outcome" => outcome).increment(1);
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("base", &self.base).finish_non_exhaustive()
    }
}
