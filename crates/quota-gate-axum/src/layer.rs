//! The layer: what all requests share.

use std::time::Duration;

use axum::{http::request::Parts, response::Response};
use tower::Layer;

use super::{Ask, Refusal, Settlements, service::QuotaService};
use quota_gate::{
    domain::{client_gone::ClientGone, hold::Ttl},
    gate::Gate,
};

/// Longer than any answer takes.
const LIFETIME_MAX: Duration = Duration::from_hours(1);

/// Puts the gate before a service. See the [crate documentation](crate).
#[derive(Debug, Clone)]
pub struct QuotaLayer<A, R> {
    pub(super) gate: Gate,
    pub(super) ask: A,
    pub(super) refuse: R,
    pub(super) ttl: Ttl,
    pub(super) lifetime_max: Duration,
    pub(super) client_gone: ClientGone,
    pub(super) settlements: Settlements,
}

impl<A, R> QuotaLayer<A, R>
where
    A: Fn(&Parts) -> Result<Ask, Response> + Clone,
    R: Fn(Refusal) -> Response + Clone,
{
    /// Creates a layer. `ask` returns the sender and the cost of a request, or answers it; `refuse` answers refused
    /// requests.
    pub fn new(gate: Gate, ask: A, refuse: R) -> Self {
        Self {
            gate,
            ask,
            refuse,
            ttl: Ttl::DEFAULT,
            lifetime_max: LIFETIME_MAX,
            client_gone: ClientGone::default(),
            settlements: Settlements::default(),
        }
    }

    /// Sets how long a hold lives between two extensions, and after its process was killed.
    #[must_use]
    pub fn ttl(self, ttl: Ttl) -> Self {
        Self { ttl, ..self }
    }

    /// Sets how long a hold is extended at most, whatever its answer does; by default an hour. After that it expires.
    #[must_use]
    pub fn lifetime_max(self, lifetime_max: Duration) -> Self {
        Self { lifetime_max, ..self }
    }

    /// Sets the cost of a message whose client has disconnected.
    #[must_use]
    pub fn client_gone(self, client_gone: ClientGone) -> Self {
        Self { client_gone, ..self }
    }

    /// Returns the settlements of all services of this layer.
    #[must_use]
    pub fn settlements(&self) -> Settlements {
        self.settlements.clone()
    }
}

impl<S, A: Clone, R: Clone> Layer<S> for QuotaLayer<A, R> {
    type Service = QuotaService<S, A, R>;

    fn layer(&self, inner: S) -> Self::Service {
        QuotaService { inner, layer: self.clone() }
    }
}
