//! A group of routes with the same rules of admission. `admit` limits the body, observes the request, and runs it or
//! refuses it.
//!
//! Requests above the limit get 503 immediately instead of queueing: waiting is worse for a client than a refusal.
//! Settlements have separate permits, so that generated messages can be charged while new work is refused.
//!
//! A single layer does all of this because axum clones every layer for every request.

use axum::{
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::http::{
    AppState,
    answers::problem::{Code, Problem, is_unauthenticated},
    observe::observe,
    server::ClientAddress,
};

/// Admission rules of a group of routes.
#[derive(Clone)]
pub(crate) struct RouteGroup {
    pub(crate) state: AppState,
    pub(crate) permit: PermitKind,
    pub(crate) body_bytes_max: usize,
    /// Formats a problem for the clients of this group.
    pub(crate) format_problem: fn(Problem) -> Response,
}

/// The permit that a request needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PermitKind {
    /// A permit for new work.
    Request,
    /// A permit for settling work that has begun.
    Settlement,
    /// None: operators must always get an answer; requests to a model hold a permit of the proxy.
    None,
}

/// Middleware: runs a request of this group, or refuses it.
pub(crate) async fn admit(State(group): State<RouteGroup>, mut request: Request, next: Next) -> Response {
    DefaultBodyLimit::max(group.body_bytes_max).apply(&mut request);
    let peer = request.extensions().get::<ClientAddress>().map(|ClientAddress(peer)| *peer);
    let address = peer.map(|peer| group.state.client_address(peer, request.headers()));
    let limits = group.state.rate_limits();
    let mut response = observe(request, (address, group.format_problem), async |request| {
        if let Some(Err(problem)) = address.map(|address| limits.address(address)) {
            return (group.format_problem)(problem);
        }
        let response = group.run(request, next).await;
        // After too many attempts with invalid credentials, an address gets 429 instead of 401.
        match address.filter(|_| is_unauthenticated(&response)).map(|address| limits.unauthenticated(address)) {
            Some(Err(problem)) => (group.format_problem)(problem),
            _ => response,
        }
    })
    .await;
    if group.state.is_stopping() {
        // A client that reuses the connection would lose its next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Maximum number of bytes of an oversized body that are read and discarded. A client that is still sending when the
/// connection closes may never receive the answer; this is accepted for clients that send more.
const DRAINED_BYTES_MAX: usize = 4 * 1024 * 1024;

impl RouteGroup {
    async fn run(&self, request: Request, next: Next) -> Response {
        let (permits, request_timeout) = (self.state.permits(), self.state.limits().request_timeout);
        if declared_length(&request) > self.body_bytes_max {
            let drained = drain(request.into_body());
            // The answer is the same whether or not the whole body arrived.
            let _ = timeout(request_timeout, drained).await;
            let rule = format!("a body has at most {} bytes", self.body_bytes_max);
            return (self.format_problem)(Problem::new(Code::PayloadTooLarge, rule));
        }
        let permits = match self.permit {
            PermitKind::Request => &permits.requests,
            PermitKind::Settlement => &permits.settlements,
            PermitKind::None => return next.run(request).await,
        };
        let Ok(_permit) = permits.try_acquire() else {
            return (self.format_problem)(Problem::shed());
        };
        timeout(request_timeout, next.run(request))
            .await
            .unwrap_or_else(|_| (self.format_problem)(Problem::indeterminate("the request took too long")))
    }
}

fn declared_length(request: &Request) -> usize {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

async fn drain(mut body: Body) {
    let mut drained = 0;
    while drained < DRAINED_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
}
