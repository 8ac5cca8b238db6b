//! Observes each request: an id, also in the answer; a span for log lines; two metrics. Records no tokens or bodies.
//! Turns a handler's panic into a problem.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    response::Response,
};
use futures_util::FutureExt;
use metrics::{Counter, Histogram};
use opentelemetry::{global, propagation::Extractor};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use crate::{
    http::answers::problem::{Problem, panicked},
    telemetry::ACCESS,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// <https://www.w3.org/TR/trace-context/#traceparent-header>
const TRACEPARENT: &str = "traceparent";

/// The caller's headers, which can name a trace.
struct Caller<'a>(&'a HeaderMap);

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Metric handles of one route, cached because a lookup by labels costs more than everything else here.
struct RouteMetrics {
    latency: Histogram,
    requests: Vec<(Method, StatusCode, Counter)>,
}

thread_local! {
    static BY_ROUTE: RefCell<HashMap<String, RouteMetrics>> = RefCell::default();
}

pub(crate) async fn observe(
    request: Request,
    (address, format_problem): (Option<IpAddr>, fn(Problem) -> Response),
    handle: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let started = Instant::now();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    let method = request.method().clone();
    let id = request.headers().get(X_REQUEST_ID).cloned().unwrap_or_else(new_id);
    let span = tracing::info_span!("request", %method, route, request_id = id.to_str().unwrap_or(""));
    if request.headers().contains_key(TRACEPARENT) {
        let caller = global::get_text_map_propagator(|propagator| propagator.extract(&Caller(request.headers())));
        // Without tracing, no parent is needed.
        let _ = span.set_parent(caller);
    }
    // A panicking handler leaves only its own request's state incomplete.
    let handled = AssertUnwindSafe(handle(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = handled.unwrap_or_else(|panic| format_problem(span.in_scope(|| panicked(&*panic))));
    let (status, elapsed) = (response.status(), started.elapsed());
    span.in_scope(|| {
        tracing::info!(
            target: ACCESS,
            client = address.map(tracing::field::display),
            status = status.as_u16(),
            latency_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
    });
    BY_ROUTE.with_borrow_mut(|routes| {
        if !routes.contains_key(route) {
            routes.insert(route.to_owned(), RouteMetrics::new(route));
        }
        if let Some(metrics) = routes.get_mut(route) {
            metrics.latency.record(elapsed);
            metrics.count(route, &method, status);
        }
    });
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

fn new_id() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl RouteMetrics {
    fn new(route: &str) -> Self {
        let latency = metrics::histogram!("quota_gate_http_request_seconds", "route" => route.to_owned());
        Self { latency, requests: Vec::new() }
    }

    fn count(&mut self, route: &str, method: &Method, status: StatusCode) {
        let cached = self.requests.iter().find(|(of_method, of_status, _)| of_method == method && *of_status == status);
        if let Some((_, _, counter)) = cached {
            return counter.increment(1);
        }
        let counter = metrics::counter!(
            "quota_gate_http_requests_total",
            "route" => route.to_owned(),
            "method" => label(method),
            "status" => status.as_str().to_owned(),
        );
        counter.increment(1);
        // Clients can invent methods: all of them count as one, and none is cached.
        if label(method) != OTHER {
            self.requests.push((method.clone(), status, counter));
        }
    }
}

const OTHER: &str = "other";

fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => OTHER,
    }
}
