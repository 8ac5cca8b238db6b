//! State shared by all handlers.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{extract::FromRef, http::HeaderMap};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    billing::Billing,
    http::{
        Auth, Cors, RateLimits,
        answers::{
            problem::{Code, Problem},
            remedies::Shop,
        },
        client_address::{Network, client_address},
        meter::{MeterNames, MeterSettings},
        stream_permits::{NoPermit, StreamPermit, StreamPermits},
    },
    openai::Proxy,
    reloadable::Reloadable,
};
use quota_gate::{
    audit::{health::HealthCheck, verify::Verifier},
    domain::{model_costs::ModelCosts, user_id::UserId},
    gate::Gate,
    jobs::{quota_watcher::QuotaWatcher, resetter::Resetter},
};
use quota_gate_axum::Settlements;

/// State shared by all handlers: one pointer, because each request clones it several times, on every core.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    parts: AppParts,
    permits: Arc<Permits>,
    /// Holds that are charged at their expiry.
    expiring: Settlements,
}

/// Parts of the state.
#[expect(missing_docs, reason = "the types describe the parts")]
pub struct AppParts {
    pub gate: Gate,
    pub meter: Arc<MeterSettings>,
    pub meter_names: Arc<[String]>,
    pub auth: Arc<Auth>,
    pub rate_limits: Arc<RateLimits>,
    pub resetter: Arc<Resetter>,
    pub health: Arc<HealthCheck>,
    pub verifier: Arc<Verifier>,
    pub quota_watcher: QuotaWatcher,
    pub costs: Reloadable<ModelCosts>,
    pub shop: Shop,
    pub readiness: Arc<Readiness>,
    pub metrics: Option<PrometheusHandle>,
    pub proxy: Option<Proxy>,
    pub billing: Option<Arc<Billing>>,
    pub transfers_enabled: bool,
    pub limits: Limits,
    pub cors: Option<Cors>,
    pub trusted_proxies: Vec<Network>,
}

/// Limits of requests.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum concurrent requests.
    pub requests_in_flight_max: usize,
    /// Maximum quota streams, in addition to requests.
    pub quota_streams_max: usize,
    /// Maximum quota streams of one user.
    pub quota_streams_per_user_max: usize,
    /// Maximum concurrent settlements, in addition to requests.
    pub settlements_in_flight_max: usize,
    /// Maximum duration of a request; then it gets 503.
    pub request_timeout: Duration,
    /// Maximum size of a request body.
    pub body_bytes_max: usize,
}

/// Permits for concurrent work, as many of each kind as [`Limits`] allows.
#[derive(Debug)]
pub(crate) struct Permits {
    pub(crate) requests: Semaphore,
    pub(crate) settlements: Semaphore,
    streams: StreamPermits,
}

/// Whether the gate is ready for requests.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Cancelled when the gate begins to stop: readiness fails first.
    pub stopping: CancellationToken,
}

impl AppState {
    /// Builds the state from its parts.
    #[must_use]
    pub fn new(parts: AppParts) -> Self {
        let permits = Permits {
            requests: Semaphore::new(parts.limits.requests_in_flight_max),
            settlements: Semaphore::new(parts.limits.settlements_in_flight_max),
            streams: StreamPermits::new(parts.limits.quota_streams_max, parts.limits.quota_streams_per_user_max),
        };
        Self(Arc::new(Shared { parts, permits: Arc::new(permits), expiring: Settlements::default() }))
    }

    /// The state of the routes of another meter. Permits and limits are those of the chat, together.
    #[must_use]
    pub fn of_meter(&self, meter: MeterSettings, costs: ModelCosts) -> Self {
        let AppParts { gate, quota_watcher, auth, rate_limits, resetter, health, verifier, .. } = &self.0.parts;
        let AppParts { readiness, metrics, limits, cors, trusted_proxies, meter_names, .. } = &self.0.parts;
        // Prices of models and packs are the chat's.
        let costs = Reloadable::new(costs);
        let transfers_enabled = self.0.parts.transfers_enabled;
        let parts = AppParts {
            gate: gate.of_meter(meter.code),
            quota_watcher: quota_watcher.of_meter(meter.code),
            meter: Arc::new(meter),
            meter_names: Arc::clone(meter_names),
            auth: Arc::clone(auth),
            rate_limits: Arc::clone(rate_limits),
            resetter: Arc::clone(resetter),
            health: Arc::clone(health),
            verifier: Arc::clone(verifier),
            costs: costs.clone(),
            shop: Shop::new(costs, Vec::new()),
            readiness: Arc::clone(readiness),
            metrics: metrics.clone(),
            proxy: None,
            billing: None,
            transfers_enabled,
            limits: *limits,
            cors: cors.clone(),
            trusted_proxies: trusted_proxies.clone(),
        };
        let permits = Arc::clone(&self.0.permits);
        Self(Arc::new(Shared { parts, permits, expiring: Settlements::default() }))
    }

    /// The meter that the routes of this state count.
    pub(crate) fn meter(&self) -> &MeterSettings {
        &self.0.parts.meter
    }

    /// Waits until the gate has settled what it settles itself. Await it after the last request.
    pub async fn settled(&self) {
        self.0.expiring.finished().await;
        if let Some(proxy) = &self.0.parts.proxy {
            proxy.settlements().finished().await;
        }
    }

    /// Holds that are charged at their expiry.
    pub(crate) fn expiring(&self) -> &Settlements {
        &self.0.expiring
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.parts.limits
    }

    pub(crate) fn permits(&self) -> &Permits {
        &self.0.permits
    }

    /// Takes a permit for a quota stream of this user.
    pub(crate) fn stream_permit(&self, user: &UserId) -> Result<StreamPermit, Problem> {
        self.0.permits.streams.take(user).map_err(|none| match none {
            NoPermit::OfUser(max) => Problem::too_many_streams(max),
            NoPermit::OfGate => Problem::unavailable("too many streams are open; poll the quota instead"),
        })
    }

    pub(crate) fn rate_limits(&self) -> &RateLimits {
        &self.0.parts.rate_limits
    }

    /// Returns the address of the client of a request from `peer`.
    pub(crate) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        client_address(peer, headers, &self.0.parts.trusted_proxies)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.parts.readiness.stopping.is_cancelled()
    }

    /// Returns the proxy, if an upstream is configured.
    pub(crate) fn proxy(&self) -> Result<&Proxy, Problem> {
        self.0
            .parts
            .proxy
            .as_ref()
            .ok_or_else(|| Problem::new(Code::NotFound, "this gate has no upstream: set upstream.url"))
    }

    /// Returns the receiver of billing events, if configured.
    pub(crate) fn billing(&self) -> Result<&Arc<Billing>, Problem> {
        self.0.parts.billing.as_ref().ok_or_else(|| Problem::new(Code::NotFound, "set billing.webhook_secret"))
    }

    /// Refuses transfers unless the operator has enabled them.
    pub(crate) fn require_transfers(&self) -> Result<(), Problem> {
        let off =
            || Problem::new(Code::Forbidden, "transfers are off: set transfers.enabled when all gates can read them");
        self.0.parts.transfers_enabled.then_some(()).ok_or_else(off)
    }

    pub(crate) fn cors(&self) -> Option<&Cors> {
        self.0.parts.cors.as_ref()
    }

    pub(crate) fn metrics(&self) -> Option<&PrometheusHandle> {
        self.0.parts.metrics.as_ref()
    }
}

macro_rules! extract_parts {
    ($($field:ident: $type:ty),* $(,)?) => {
        $(
            impl FromRef<AppState> for $type {
                fn from_ref(state: &AppState) -> Self {
                    state.0.parts.$field.clone()
                }
            }
        )*
    };
}

impl FromRef<AppState> for MeterNames {
    fn from_ref(state: &AppState) -> Self {
        Self(Arc::clone(&state.0.parts.meter_names))
    }
}

extract_parts! {
    gate: Gate,
    meter: Arc<MeterSettings>,
    auth: Arc<Auth>,
    resetter: Arc<Resetter>,
    health: Arc<HealthCheck>,
    verifier: Arc<Verifier>,
    quota_watcher: QuotaWatcher,
    costs: Reloadable<ModelCosts>,
    shop: Shop,
    readiness: Arc<Readiness>,
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("gate", &self.0.parts.gate).finish_non_exhaustive()
    }
}
