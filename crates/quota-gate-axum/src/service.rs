//! The service: admits a request, calls the inner service, and settles by its response.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    task::{Context, Poll},
};

use axum::{extract::Request, http::request::Parts, response::Response};
use futures_util::{FutureExt, future::BoxFuture};
use tower::Service;

use super::{Admitted, Ask, QuotaLayer, Refusal};

/// A service behind the gate. See the [crate].
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
        // The clone may not be ready; the service that was polled is.
        let inner = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, inner);
        let QuotaLayer { admitter, ask, refuse } = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let message = match ask(&parts) {
                Ok(message) => message,
                Err(response) => return Ok(response),
            };
            let admission = match admitter.admit(message).await {
                Ok(admission) => admission,
                Err(refusal) => return Ok(refuse(refusal)),
            };
            parts.extensions.insert(admission.answer_cost());
            if let Some(quota) = admission.quota() {
                parts.extensions.insert(Admitted(quota.clone()));
            }
            // State that a panic leaves half-changed belongs to this request only.
            let answer = AssertUnwindSafe(inner.call(Request::from_parts(parts, body))).catch_unwind().await;
            // With a panic or an error the admission is dropped, which releases the hold.
            let answer = answer.unwrap_or_else(|panic| resume_unwind(panic))?;
            Ok(admission.settle_by(answer))
        })
    }
}
