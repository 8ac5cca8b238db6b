//! The way in, the same for every route: its body is bounded, it is observed, and it is let in or not.
//!
//! Too much at once is refused immediately, with 503, instead of queueing: a client that waits is worse off than one that
//! knows. Settlements have permits of their own: what was generated can be charged while new work is refused.
//!
//! One layer does all of it, for axum clones every layer at every request.

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

/// The way in for one group of routes.
#[derive(Clone)]
pub(crate) struct RouteGroup {
    pub(crate) state: AppState,
    pub(crate) permits: Permits,
    pub(crate) body_bytes_max: usize,
    /// How its clients are told what is wrong.
    pub(crate) refuse: fn(Problem) -> Response,
}

/// What a request needs to be let in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Permits {
    /// One of those for new work.
    Requests,
    /// One of those for what is begun.
    Settlements,
    /// Nothing: whoever runs the gate has to get an answer; and whoever asks a model holds a permit of the proxy's.
    None,
}

pub(crate) async fn admit(State(group): State<RouteGroup>, mut request: Request, next: Next) -> Response {
    DefaultBodyLimit::max(group.body_bytes_max).apply(&mut request);
    let address = request.extensions().get::<ClientAddress>().map(|ClientAddress(address)| *address);
    let limits = group.state.rate_limits();
    let mut response = observe(request, async |request| {
        if let Some(Err(refused)) = address.map(|address| limits.address(address)) {
            return (group.refuse)(refused);
        }
        let response = group.run(request, next).await;
        // Whoever tries credentials is told nothing more once that was too often.
        match address.filter(|_| is_unauthenticated(&response)).map(|address| limits.unauthenticated(address)) {
            Some(Err(refused)) => (group.refuse)(refused),
            _ => response,
        }
    })
    .await;
    if group.state.is_stopping() {
        // A client that keeps the connection would meet its end with its next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// So much of a body that is too large is read and thrown away. A client that is still sending when the connection closes may
/// never see the answer; one that sends more than this has to put up with that.
const DRAINED_BYTES_MAX: usize = 4 * 1024 * 1024;

impl RouteGroup {
    async fn run(&self, request: Request, next: Next) -> Response {
        let state_permits = self.state.permits();
        if declared_length(&request) > self.body_bytes_max {
            let drained = drain(request.into_body());
            // Whether all of it came makes no difference to the answer.
            let _ = timeout(state_permits.limits.request_timeout, drained).await;
            let rule = format!("a body has at most {} bytes", self.body_bytes_max);
            return (self.refuse)(Problem::new(Code::PayloadTooLarge, rule));
        }
        let permits = match self.permits {
            Permits::Requests => &state_permits.requests,
            Permits::Settlements => &state_permits.settlements,
            Permits::None => return next.run(request).await,
        };
        let Ok(_permit) = permits.try_acquire() else {
            return (self.refuse)(Problem::shed());
        };
        timeout(state_permits.limits.request_timeout, next.run(request))
            .await
            .unwrap_or_else(|_| (self.refuse)(Problem::indeterminate("the request took too long")))
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
