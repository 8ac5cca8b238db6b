//! What every handler can reach.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Auth;
use crate::{
    gate::Gate,
    jobs::{health::HealthCheck, resetter::Resetter},
};

/// What every handler can reach. A cheap clone.
#[derive(Clone, FromRef)]
pub struct AppState {
    /// The gate.
    pub gate: Gate,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// Runs a reset.
    pub resetter: Arc<Resetter>,
    /// How the jobs are doing.
    pub health: Arc<HealthCheck>,
    /// May the gate be sent requests?
    pub readiness: Arc<Readiness>,
    /// What `/metrics` shows.
    pub metrics: Option<PrometheusHandle>,
    admission: Arc<Admission>,
}

/// How much at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most requests at work.
    pub requests_in_flight_max: usize,
    /// Most settlements at work besides them.
    pub settlements_in_flight_max: usize,
    /// A request that takes longer is answered 503.
    pub request_timeout: Duration,
    /// Longest request body.
    pub body_bytes_max: usize,
}

/// Permits for requests at work.
#[derive(Debug)]
pub struct Admission {
    pub(super) requests: Semaphore,
    pub(super) settlements: Semaphore,
    pub(super) limits: Limits,
}

/// May the gate be sent requests?
#[derive(Debug, Default)]
pub struct Readiness {
    /// Cancelled when the gate begins to stop: readiness goes down first.
    pub stopping: CancellationToken,
}

impl AppState {
    /// Puts it together.
    #[must_use]
    pub fn new(
        gate: Gate,
        auth: Auth,
        (resetter, health): (Resetter, HealthCheck),
        readiness: Readiness,
        metrics: Option<PrometheusHandle>,
        limits: Limits,
    ) -> Self {
        Self {
            gate,
            auth: Arc::new(auth),
            resetter: Arc::new(resetter),
            health: Arc::new(health),
            readiness: Arc::new(readiness),
            metrics,
            admission: Arc::new(Admission {
                requests: Semaphore::new(limits.requests_in_flight_max),
                settlements: Semaphore::new(limits.settlements_in_flight_max),
                limits,
            }),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.admission.limits
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("gate", &self.gate).finish_non_exhaustive()
    }
}
