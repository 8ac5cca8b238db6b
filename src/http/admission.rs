//! Which requests are let in, and what is known of each.
//!
//! Too much at once is refused immediately, with 503, instead of queueing: a client that waits is worse off than one that
//! knows. Settlements have permits of their own: what was generated can be charged while new work is refused.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::Instrument;

use super::{AppState, error::Problem, state::Limits};

pub(super) async fn admit_request(State(state): State<AppState>, request: Request, next: Next) -> Response {
    admit(&state.admission().requests, state.limits(), request, next).await
}

pub(super) async fn admit_settlement(State(state): State<AppState>, request: Request, next: Next) -> Response {
    admit(&state.admission().settlements, state.limits(), request, next).await
}

async fn admit(permits: &Semaphore, limits: &Limits, request: Request, next: Next) -> Response {
    let Ok(_permit) = permits.try_acquire() else {
        metrics::counter!("quota_gate_shed_requests_total").increment(1);
        return Problem::unavailable("the gate has as much to do as it may; try again").into_response();
    };
    timeout(limits.request_timeout, next.run(request))
        .await
        .unwrap_or_else(|_| Problem::indeterminate("the request took too long").into_response())
}

/// One span and two metrics for each request. Never a token, never a body.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let request_id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
    let span = tracing::info_span!("request", %method, route, request_id);
    let response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status(), started.elapsed());
    span.in_scope(|| {
        tracing::debug!(
            status = status.as_u16(),
            latency_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
    });
    let labels = [("route", route), ("method", method.to_string()), ("status", status.as_str().to_owned())];
    metrics::counter!("quota_gate_http_requests_total", &labels).increment(1);
    metrics::histogram!("quota_gate_http_request_seconds", "route" => labels[0].1.clone()).record(elapsed);
    response
}
