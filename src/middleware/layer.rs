//! The layer: what all requests share.

use axum::{http::request::Parts, response::Response};
use tower::Layer;

use super::{Ask, Refusal, Settlements, service::QuotaService};
use crate::{domain::hold::Ttl, gate::Gate};

/// What a message costs whose client has gone, or whose answer has broken off, after content was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientGone {
    /// What it would have cost: it was generated.
    #[default]
    Charge,
    /// Nothing.
    Release,
    /// The part that was delivered, by the length that the answer declared; all of it where none was declared.
    Proportion,
}

/// Puts the gate before a service. See the [module](super).
#[derive(Debug, Clone)]
pub struct QuotaLayer<A, R> {
    pub(super) gate: Gate,
    pub(super) ask: A,
    pub(super) refuse: R,
    pub(super) ttl: Ttl,
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
            client_gone: ClientGone::default(),
            settlements: Settlements::default(),
        }
    }

    /// How long a hold lives between two extensions, and after its process was killed.
    #[must_use]
    pub fn ttl(self, ttl: Ttl) -> Self {
        Self { ttl, ..self }
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
