//! What every handler can reach.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    Auth, Billing, Proxy, RateLimits,
    error::{Code, Problem},
};
use crate::{
    domain::model_costs::ModelCosts,
    gate::Gate,
    jobs::{
        health::HealthCheck, resetter::Resetter, rollout_keeper::RolloutKeeper, verifier::Verifier, watcher::Watcher,
    },
    middleware::Settlements,
};

/// What every handler can reach. One pointer: a request clones it several times, on every core.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

struct Parts {
    gate: Gate,
    auth: Arc<Auth>,
    rate_limits: Arc<RateLimits>,
    resetter: Arc<Resetter>,
    health: Arc<HealthCheck>,
    rollout_keeper: Arc<RolloutKeeper>,
    verifier: Arc<Verifier>,
    watcher: Watcher,
    costs: Arc<ModelCosts>,
    expiring: Settlements,
    readiness: Arc<Readiness>,
    metrics: Option<PrometheusHandle>,
    proxy: Option<Proxy>,
    billing: Option<Arc<Billing>>,
    admission: Admission,
}

/// How much at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most requests at work.
    pub requests_in_flight_max: usize,
    /// Most streams of quotas besides them.
    pub quota_streams_max: usize,
    /// Most settlements at work besides them.
    pub settlements_in_flight_max: usize,
    /// A request that takes longer is answered 503.
    pub request_timeout: Duration,
    /// Longest request body.
    pub body_bytes_max: usize,
}

/// Permits for requests at work.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) requests: Semaphore,
    pub(super) streams: Arc<Semaphore>,
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
        (auth, rate_limits): (Auth, Arc<RateLimits>),
        (resetter, health, rollout_keeper, watcher, verifier): (
            Resetter,
            HealthCheck,
            RolloutKeeper,
            Watcher,
            Verifier,
        ),
        readiness: Readiness,
        metrics: Option<PrometheusHandle>,
        (costs, proxy, billing): (ModelCosts, Option<Proxy>, Option<Billing>),
        limits: Limits,
    ) -> Self {
        Self(Arc::new(Parts {
            gate,
            auth: Arc::new(auth),
            rate_limits,
            resetter: Arc::new(resetter),
            health: Arc::new(health),
            rollout_keeper: Arc::new(rollout_keeper),
            verifier: Arc::new(verifier),
            watcher,
            costs: Arc::new(costs),
            expiring: Settlements::default(),
            readiness: Arc::new(readiness),
            metrics,
            proxy,
            billing: billing.map(Arc::new),
            admission: Admission {
                requests: Semaphore::new(limits.requests_in_flight_max),
                streams: Arc::new(Semaphore::new(limits.quota_streams_max)),
                settlements: Semaphore::new(limits.settlements_in_flight_max),
                limits,
            },
        }))
    }

    /// Waits until everything is settled that is the gate's to settle. To be awaited after the last request.
    pub async fn settled(&self) {
        self.0.expiring.finished().await;
        if let Some(proxy) = &self.0.proxy {
            proxy.settlements().finished().await;
        }
    }

    /// Holds that are charged at their expiry.
    pub(super) fn expiring(&self) -> &Settlements {
        &self.0.expiring
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.admission.limits
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    /// A place for one more stream.
    pub(super) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let streams = Arc::clone(&self.0.admission.streams);
        streams
            .try_acquire_owned()
            .map_err(|_| Problem::unavailable("too many streams are open; poll the quota instead"))
    }

    pub(super) fn rate_limits(&self) -> &RateLimits {
        &self.0.rate_limits
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.0.readiness.stopping.is_cancelled()
    }

    /// The proxy, if there is one.
    pub(super) fn proxy(&self) -> Result<&Proxy, Problem> {
        self.0.proxy.as_ref().ok_or_else(|| Problem::new(Code::NotFound, "this gate has no upstream: set upstream.url"))
    }

    /// What understands billing's events, if there is something.
    pub(super) fn billing(&self) -> Result<&Arc<Billing>, Problem> {
        self.0.billing.as_ref().ok_or_else(|| Problem::new(Code::NotFound, "set billing.webhook_secret"))
    }

    /// What `/metrics` shows.
    pub(super) fn metrics(&self) -> Option<&PrometheusHandle> {
        self.0.metrics.as_ref()
    }
}

macro_rules! reachable {
    ($($field:ident: $type:ty),* $(,)?) => {
        $(
            impl FromRef<AppState> for $type {
                fn from_ref(state: &AppState) -> Self {
                    state.0.$field.clone()
                }
            }
        )*
    };
}

reachable! {
    gate: Gate,
    auth: Arc<Auth>,
    resetter: Arc<Resetter>,
    health: Arc<HealthCheck>,
    rollout_keeper: Arc<RolloutKeeper>,
    verifier: Arc<Verifier>,
    watcher: Watcher,
    costs: Arc<ModelCosts>,
    readiness: Arc<Readiness>,
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("gate", &self.0.gate).finish_non_exhaustive()
    }
}
