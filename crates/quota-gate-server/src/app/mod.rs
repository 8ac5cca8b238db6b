//! The program as a whole: a gate, what serves it, and what runs beside it.

mod check;
mod parts;
mod reload;

use std::sync::Arc;

use anyhow::Context;
use axum::{Router, extract::FromRef};
use metrics_exporter_prometheus::PrometheusHandle;
use quota_gate::{
    gate::Gate,
    jobs::resetter::Resetter,
    runtime::{Runtime, start_gate},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::check::refusals;
pub use self::parts::{old_credits, postgres, redis, settled_postgres};
use self::reload::Reload;
use crate::{
    config::{Config, Secret, ms},
    descriptors::{self, Descriptors},
    envoy::{self, RateLimitService},
    hex,
    http::{
        AppState, ServerOptions,
        listener::{BACKLOG, listen, lower_bound},
        router, serve,
    },
    telemetry::{LogFilter, MetricsUpkeep},
};

/// A gate with the settings of this process.
#[derive(Debug, Clone)]
pub struct App {
    config: Arc<Config>,
    reload: Option<LogFilter>,
    /// The gate.
    pub gate: Gate,
}

impl App {
    /// Connects, checks both stores and the tables, and starts a gate without its jobs.
    ///
    /// # Errors
    /// With what is wrong and what to do.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let gate = start_gate(config.runtime_options()?).await?;
        Ok(Self { config: Arc::new(config), reload: None, gate })
    }

    /// Like [`build`](Self::build), for a command that makes and settles no reservations: the secret that signs them
    /// may be missing.
    ///
    /// # Errors
    /// With what is wrong and what to do.
    pub async fn for_command(mut config: Config) -> anyhow::Result<Self> {
        if config.auth.reservation_secret.expose().is_empty() {
            let mut random = [0; 32];
            getrandom::fill(&mut random).context("cannot get random bytes")?;
            config.auth.reservation_secret = Secret::new(hex::encode(&random));
        }
        Box::pin(Self::build(config)).await
    }

    /// Reads the configuration again at each SIGHUP, and replaces this filter of log lines too.
    #[must_use]
    pub fn reloading(self, filter: LogFilter) -> Self {
        Self { reload: Some(filter), ..self }
    }

    /// Serves the gate and `additional` routes until cancelled. Then ends the requests, and flushes what they charged.
    ///
    /// # Errors
    /// If a setting is invalid, or a job keeps failing.
    pub async fn run(
        self,
        listener: TcpListener,
        metrics: Option<PrometheusHandle>,
        additional: Router,
        cancelled: CancellationToken,
    ) -> anyhow::Result<()> {
        let config = &self.config;
        let mut options = config.job_options()?;
        options.gauges = metrics.is_some();
        let runtime = Runtime::start_jobs(self.gate.clone(), options).await?;
        let state = parts::state(config, &runtime, metrics.clone(), cancelled.clone()).await?;
        if let Some(metrics) = metrics {
            runtime.run(MetricsUpkeep(metrics));
        }
        parts::run_outboxes(config, &runtime).await?;
        serve_envoy(config, &runtime, &state, &cancelled)?;
        if let Some(filter) = self.reload.clone() {
            reload_at_signals(config, filter, &runtime, &state, &cancelled)?;
        }
        if let Some(bound) = lower_bound() {
            tracing::warn!(
                "net.core.somaxconn is {bound}: when many clients reconnect at the same time, connections beyond it are \
                 delayed; set it to {BACKLOG}"
            );
        }
        tracing::info!(listen = %listener.local_addr()?, "the gate is open");
        let routes = additional.merge(router(state.clone(), parts::meters(config, &self.gate, &state)?));
        let serving = serve(listener, routes, server_options(config), cancelled.clone());
        tokio::pin!(serving);
        let failed = tokio::select! {
            () = &mut serving => None,
            failed = runtime.failed() => {
                cancelled.cancel();
                serving.await;
                Some(failed)
            }
        };
        // Requests that were cut off are settled and flushed too, within one time for both.
        let deadline = Instant::now() + ms(config.server.drain_timeout_ms);
        if timeout_at(deadline, state.settled()).await.is_err() {
            tracing::warn!("some settlements took too long; their holds expire");
        }
        runtime.shutdown(deadline - Instant::now()).await;
        failed.map_or(Ok(()), |failed| Err(failed.into()))
    }

    /// The resetter.
    #[must_use]
    pub fn resetter(&self) -> Resetter {
        Resetter::new(&self.gate)
    }
}

/// Returns the options of the server. Its connections leave enough file descriptors for the stores.
fn server_options(config: &Config) -> ServerOptions {
    let descriptors = Descriptors::of(config, descriptors::raise_limit());
    let connections_max = descriptors.connections_max();
    if !descriptors.suffice() {
        tracing::warn!(
            "{descriptors}: at most {connections_max} clients are accepted; raise the limit (ulimit -n, LimitNOFILE), or \
             lower server.connections_max"
        );
    }
    ServerOptions { connections_max, ..ServerOptions::from(&config.server) }
}

/// Applies the configuration again at each SIGHUP, until cancelled.
fn reload_at_signals(
    config: &Arc<Config>,
    filter: LogFilter,
    runtime: &Runtime,
    state: &AppState,
    cancelled: &CancellationToken,
) -> anyhow::Result<()> {
    let (auth, costs) = (FromRef::from_ref(state), FromRef::from_ref(state));
    let reload = Reload { running: Arc::clone(config), auth, costs, filter };
    // From here on, the signal does not end the process.
    let signal = Arc::new(Mutex::new(signal(SignalKind::hangup())?));
    runtime.keep("reload", cancelled.clone(), move || {
        let (reload, signal) = (reload.clone(), Arc::clone(&signal));
        async move { reload.at_each(&mut *signal.lock().await).await }
    });
    Ok(())
}

/// Serves Envoy until cancelled, if it is configured.
fn serve_envoy(
    config: &Config,
    runtime: &Runtime,
    state: &AppState,
    cancelled: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(address) = config.envoy.listen else { return Ok(()) };
    let listener = listen(address).with_context(|| format!("cannot listen on {address} (envoy.listen)"))?.into_std()?;
    tracing::info!(listen_for_envoy = %listener.local_addr()?, "the gate is open for Envoy");
    let service = RateLimitService::new(state);
    let stopped = cancelled.clone();
    runtime.keep("envoy", cancelled.clone(), move || {
        let (listener, service, stopped) = (listener.try_clone(), service.clone(), stopped.clone());
        async move {
            let served = match listener.and_then(TcpListener::from_std) {
                Ok(listener) => envoy::serve(listener, service, stopped).await.map_err(anyhow::Error::from),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = served {
                tracing::error!(%error, "the gate is closed for Envoy");
            }
        }
    });
    Ok(())
}
