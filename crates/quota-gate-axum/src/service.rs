//! The service: reserves, calls the inner service, and hands the hold to the answer's body.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, http::request::Parts, response::Response};
use futures_util::{FutureExt, future::BoxFuture};
use http_body::Body as _;
use tokio::sync::oneshot;
use tower::Service;

use super::{Admitted, AnswerCost, Ask, MeteredBody, QuotaLayer, Refusal, Settlements, hold_guard::HoldGuard};
use quota_gate::{
    domain::{decision::Decision, hold::Ttl, quota::Quota},
    gate::{Gate, Reserve},
};

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
            let admission = match reserve(&layer, &parts).await {
                Ok(admission) => admission,
                Err(answer) => return Ok(answer),
            };
            let Admission::Held(hold, quota) = admission else {
                parts.extensions.insert(AnswerCost::default());
                return inner.call(Request::from_parts(parts, body)).await;
            };
            parts.extensions.insert(hold.answer_cost());
            parts.extensions.insert(Admitted(*quota));
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

/// A message that may go on.
enum Admission {
    Held(HoldGuard, Box<Quota>),
    /// The rollout lets it through: there is nothing to settle.
    Passed,
}

/// The admission of this request, or the answer to it.
async fn reserve<A, R>(layer: &QuotaLayer<A, R>, parts: &Parts) -> Result<Admission, Response>
where
    A: Fn(&Parts) -> Result<Ask, Response>,
    R: Fn(Refusal) -> Response,
{
    let ask = (layer.ask)(parts)?;
    let (gate, times, settlements) = (layer.gate.clone(), (layer.ttl, layer.lifetime_max), layer.settlements.clone());
    // A task, so that a client that goes now leaves no hold behind: the hold finds nobody who takes it, and is released.
    let (made, taken) = oneshot::channel();
    layer.settlements.0.spawn(async move { drop(made.send(admit(&gate, ask, times, &settlements).await)) });
    taken.await.expect("the task that reserves ends with an answer").map_err(|refusal| (layer.refuse)(refusal))
}

async fn admit(gate: &Gate, ask: Ask, times: (Ttl, Duration), settlements: &Settlements) -> Result<Admission, Refusal> {
    let Ask { user, session, ap } = ask;
    match gate.reserve(Reserve { user, session, ap, ttl: times.0, idempotency_key: None }).await {
        Ok(Decision::Allowed(reserved)) => {
            let hold = HoldGuard::new(gate, &reserved.reservation, times, settlements);
            Ok(Admission::Held(hold, Box::new(reserved.quota)))
        }
        Ok(Decision::Denied(denied)) => Err(Refusal::Denied(denied)),
        Ok(Decision::Passed(_)) => Ok(Admission::Passed),
        Err(error) => Err(Refusal::Failed(error)),
    }
}
