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

use super::{
    AppState,
    error::{Code, Problem, is_unauthenticated},
    observe::observe,
    server::ClientAddress,
};

/// The way in for one group of routes.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) state: AppState,
    pub(super) permits: Permits,
    pub(super) body_bytes_max: usize,
    /// How its clients are told what is wrong.
    pub(super) tell: fn(Problem) -> Response,
}

/// What a request needs to be let in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Permits {
    /// One of those for new work.
    Requests,
    /// One of those for what is begun.
    Settlements,
    /// Nothing: whoever runs the gate has to get an answer; and whoever asks a model holds a permit of the proxy's.
    None,
}

pub(super) async fn enter(State(entrance): State<Entrance>, mut request: Request, next: Next) -> Response {
    DefaultBodyLimit::max(entrance.body_bytes_max).apply(&mut request);
    let address = request.extensions().get::<ClientAddress>().map(|ClientAddress(address)| *address);
    let limits = entrance.state.rate_limits();
    let mut response = observe(request, async |request| {
        if let Some(Err(refused)) = address.map(|address| limits.address(address)) {
            return (entrance.tell)(refused);
        }
        let response = entrance.admit(request, next).await;
        // Whoever tries credentials is told nothing more once that was too often.
        match address.filter(|_| is_unauthenticated(&response)).map(|address| limits.unauthenticated(address)) {
            Some(Err(refused)) => (entrance.tell)(refused),
            _ => response,
        }
    })
    .await;
    if entrance.state.is_stopping() {
        // A client that keeps the connection would meet its end with its next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// So much of a body that is too large is read and thrown away. A client that is still sending when the connection closes may
/// never see the answer; one that sends more than this has to put up with that.
const DRAINED_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Entrance {
    async fn admit(&self, request: Request, next: Next) -> Response {
        let admission = self.state.admission();
        if declared_length(&request) > self.body_bytes_max {
            let drained = drain(request.into_body());
            // Whether all of it came makes no difference to the answer.
            let _ = timeout(admission.limits.request_timeout, drained).await;
            let rule = format!("a body has at most {} bytes", self.body_bytes_max);
            return (self.tell)(Problem::new(Code::PayloadTooLarge, rule));
        }
        let permits = match self.permits {
            Permits::Requests => &admission.requests,
            Permits::Settlements => &admission.settlements,
            Permits::None => return next.run(request).await,
        };
        let Ok(_permit) = permits.try_acquire() else {
            return (self.tell)(Problem::shed());
        };
        timeout(admission.limits.request_timeout, next.run(request))
            .await
            .unwrap_or_else(|_| (self.tell)(Problem::indeterminate("the request took too long")))
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
