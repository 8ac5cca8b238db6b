//! The layer: what all requests share.

use std::time::Duration;

use axum::{http::request::Parts, response::Response};
use tower::Layer;

use super::{Admitter, Ask, Refusal, Settlements, service::QuotaService};
use quota_gate::{
    domain::{client_gone::ClientGone, hold::Ttl},
    gate::Gate,
};

/// Puts the gate before a service. See the [crate].
#[derive(Debug, Clone)]
pub struct QuotaLayer<A, R> {
    pub(super) admitter: Admitter,
    pub(super) ask: A,
    pub(super) refuse: R,
}

impl<A, R> QuotaLayer<A, R>
where
    A: Fn(&Parts) -> Result<Ask, Response> + Clone,
    R: Fn(Refusal) -> Response + Clone,
{
    /// Creates the layer. `ask` reads the sender and the cost from a request, or answers it; `refuse` answers a message
    /// that is not admitted.
    pub fn new(gate: Gate, ask: A, refuse: R) -> Self {
        Self { admitter: Admitter::new(gate), ask, refuse }
    }

    /// Sets how long a hold lives between two extensions, and after its process was killed.
    #[must_use]
    pub fn ttl(self, ttl: Ttl) -> Self {
        Self { admitter: self.admitter.ttl(ttl), ..self }
    }

    /// Sets how long a hold is extended at most, whatever its answer does; an hour by default. After that it expires.
    #[must_use]
    pub fn lifetime_max(self, lifetime_max: Duration) -> Self {
        Self { admitter: self.admitter.lifetime_max(lifetime_max), ..self }
    }

    /// Sets what a message costs if its client disconnects.
    #[must_use]
    pub fn client_gone(self, client_gone: ClientGone) -> Self {
        Self { admitter: self.admitter.client_gone(client_gone), ..self }
    }

    /// Returns the settlements of all services of this layer.
    #[must_use]
    pub fn settlements(&self) -> Settlements {
        self.admitter.settlements()
    }
}

impl<S, A: Clone, R: Clone> Layer<S> for QuotaLayer<A, R> {
    type Service = QuotaService<S, A, R>;

    fn layer(&self, inner: S) -> Self::Service {
        QuotaService { inner, layer: self.clone() }
    }
}
