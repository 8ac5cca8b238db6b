//! Which requests are let in.
//!
//! Too much at once is refused immediately, with 503, instead of queueing: a client that waits is worse off than one that
//! knows. Settlements have permits of their own: what was generated can be charged while new work is refused.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::{sync::Semaphore, time::timeout};

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
