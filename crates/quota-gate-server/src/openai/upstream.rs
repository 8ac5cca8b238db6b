//! The way to the upstream and back: which headers go along, and how long anything may take.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header},
};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    http::answers::problem::{Code, Problem},
    outbound::{Client, base_url, bearer, client, describe},
};
use quota_gate::domain::InvalidInput;

/// What the upstream is told of the client's headers. All others stay here: credentials, cookies, names of users, addresses, and
/// whatever holds for one connection only (RFC 9110, section 7.6.1).
const TO_UPSTREAM: [HeaderName; 7] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// What the client is told of the upstream's. Its cookies, and its limits for the operator's account, are not the client's.
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
/// Where models are asked.
#[derive(Debug, Clone)]
pub struct UpstreamOptions<'a> {
    /// What clients of the API call the base URL, with `/v1` in it.
    pub url: &'a str,
    /// The operator's key.
    pub key: &'a str,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the head of an answer.
    pub head_timeout: Duration,
    /// How long to wait for the next piece of it.
    pub idle_timeout: Duration,
}

/// An OpenAI-compatible API, and a pool of connections to it.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    base: String,
    authorization: HeaderValue,
    head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

impl Upstream {
    /// Checks the options. Nothing is asked yet.
    ///
    /// # Errors
    /// If the URL is none, or the key cannot be sent.
    pub fn new(options: &UpstreamOptions<'_>) -> Result<Self, InvalidInput> {
        let invalid = |field: &'static str| move |rule: String| InvalidInput { field, rule };
        let client = client(options.connect_timeout).map_err(|error| invalid("upstream.url")(error.to_string()))?;
        Ok(Self {
            client,
            base: base_url(options.url).map_err(invalid("upstream.url"))?,
            authorization: bearer(options.key).map_err(invalid("upstream.key"))?,
            head_timeout: options.head_timeout,
            idle_timeout: options.idle_timeout,
        })
    }

    /// Asks the upstream. The answer's headers are what the client is told of them; its body is untouched.
    pub(crate) async fn ask(
        &self,
        (method, path): (Method, &str),
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Problem> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| Problem::new(Code::NotFound, "there is no such path at the upstream"))?;
        *request.headers_mut() = only(headers, &TO_UPSTREAM);
        // What is compressed could not be read on its way.
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        let asked = timeout(self.head_timeout, self.client.request(request)).await;
        let response = match asked {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                count("unreachable");
                tracing::warn!(error = describe(&error), "the upstream cannot be asked");
                return Err(Problem::new(Code::UpstreamFailed, "the model cannot be reached; nothing was charged"));
            }
            Err(_) => {
                count("timeout");
                return Err(Problem::new(Code::UpstreamTimeout, "the model does not answer; nothing was charged"));
            }
        };
        // This is about the operator's key. The client would look for the fault in its own.
        if matches!(response.status().as_u16(), 401 | 403) {
            count("key_refused");
            tracing::error!(status = response.status().as_u16(), "the upstream refuses the key in upstream.key");
            return Err(Problem::new(Code::UpstreamFailed, "the model refuses the gate; nothing was charged"));
        }
        count(if response.status().is_success() { "answered" } else { "refused" });
        let (mut parts, body) = response.into_parts();
        parts.headers = only(&parts.headers, &TO_CLIENT);
        parts.extensions.clear();
        Ok(Response::from_parts(parts, body))
    }
}

/// The body of an answer that is not looked at.
pub(crate) fn untouched(response: Response<Incoming>) -> Response<Body> {
    response.map(Body::new)
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(names.len() + 2);
    for name in names {
        if let Some(value) = headers.get(name) {
            kept.insert(name, value.clone());
        }
    }
    kept
}

fn count(outcome: &'static str) {
    metrics::counter!("quota_gate_upstream_requests_total", "outcome" => outcome).increment(1);
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("base", &self.base).finish_non_exhaustive()
    }
}
