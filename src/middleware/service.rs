//! The service: reserves, calls the inner service, and hands the hold to the answer's body.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    task::{Context, Poll},
};

use axum::{body::Body, extract::Request, http::request::Parts, response::Response};
use futures_util::{FutureExt, future::BoxFuture};
use http_body::Body as _;
use tower::Service;

use super::{Ask, MeteredBody, QuotaLayer, Refusal, Spent, hold::Hold};
use crate::{domain::decision::Decision, gate::Reserve};

/// A service behind the gate. See the [module](super).
#[derive(Debug, Clone)]
pub struct QuotaService<S, A, R> {
    pub(super) inner: S,
    pub(super) layer: QuotaLayer<A, R>,
}

impl<S, A, R> Service<Request> for QuotaService<S, A, R>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    A: Fn(&Parts) -> Result<Ask, Response> + Clone + Send + Sync + 'static,
    R: Fn(Refusal) -> Response + Clone + Send + Sync + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The clone may not be ready; what was polled is.
        let inner = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, inner);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let hold = match reserve(&layer, &parts).await {
                Ok(hold) => hold,
                Err(answer) => return Ok(answer),
            };
            parts.extensions.insert(hold.spent());
            // Whatever a handler leaves half done by a panic is its request's own.
            let answer = AssertUnwindSafe(inner.call(Request::from_parts(parts, body))).catch_unwind().await;
            // A hold that is dropped is released: with a panic, an error, or the whole request.
            let answer = answer.unwrap_or_else(|panic| resume_unwind(panic))?;
            if !answer.status().is_success() {
                return Ok(answer);
            }
            let declared = answer.body().size_hint().exact();
            Ok(answer.map(|body| Body::new(MeteredBody::new(body, declared, hold, layer.client_gone))))
        })
    }
}

/// A hold for this request, or the answer to it.
async fn reserve<A, R>(layer: &QuotaLayer<A, R>, parts: &Parts) -> Result<Hold, Response>
where
    A: Fn(&Parts) -> Result<Ask, Response>,
    R: Fn(Refusal) -> Response,
{
    let Ask { user, session, ap } = (layer.ask)(parts)?;
    let request = Reserve { user, session, ap, ttl: layer.ttl, idempotency_key: None };
    match layer.gate.reserve(request).await {
        Ok(Decision::Allowed(reserved)) => {
            Ok(Hold::new(&layer.gate, &reserved.reservation, layer.ttl, &layer.settlements, Spent::default()))
        }
        Ok(Decision::Denied(denied)) => Err((layer.refuse)(Refusal::Denied(denied))),
        Err(error) => Err((layer.refuse)(Refusal::Failed(error))),
    }
}
