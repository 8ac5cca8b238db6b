//! The layer: what all requests share.

use std::time::Duration;

use axum::{http::request::Parts, response::Response};
use tower::Layer;

use super::{Ask, Refusal, Settlements, service::QuotaService};
use quota_gate::{
    domain::{client_gone::ClientGone, hold::Ttl},
    gate::Gate,
};

/// Longer than any answer.
const LIFETIME_MAX: Duration = Duration::from_hours(1);

/// Puts the gate before a service. See the [module](super).
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
    /// `ask` says who sends a request and what it costs, or answers it; `refuse` answers what is not let through.
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

    /// How long a hold lives between two extensions, and after its process was killed.
    #[must_use]
    pub fn ttl(self, ttl: Ttl) -> Self {
        Self { ttl, ..self }
    }

    /// A hold is extended no longer than this, whatever its answer does; by default an hour. After that it expires.
    #[must_use]
    pub fn lifetime_max(self, lifetime_max: Duration) -> Self {
        Self { lifetime_max, ..self }
    }

    /// What a message costs whose client has gone.
    #[must_use]
    pub fn client_gone(self, client_gone: ClientGone) -> Self {
        Self { client_gone, ..self }
    }

    /// The settlements of all services of this layer.
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
