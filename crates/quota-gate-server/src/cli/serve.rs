//! `quota-gate serve`: runs the gate.

use std::process::ExitCode;

use super::VERSION;
use crate::{
    app::App,
    config::Config,
    descriptors,
    http::listener::listen,
    shutdown::{self, Hangup},
    telemetry,
};
use anyhow::Context;
use axum::Router;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    config.check_secret_files()?;
    let traces = config.traces()?;
    let filter = telemetry::log(config.telemetry.log_format, config.telemetry.filter()?, traces.as_ref());
    tracing::info!(
        version = VERSION,
        redis = config.redis.url.location(),
        postgres = config.postgres.url.location(),
        descriptors = descriptors::raise_limit(),
        "quota gate starts"
    );
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let metrics = telemetry::metrics().context("cannot collect metrics")?;
    let cancelled = shutdown::on_signal(Hangup::IsHandled)?;
    let address = config.server.listen;
    let listener = listen(address).with_context(|| format!("cannot listen on {address} (server.listen)"))?;
    App::build(config).await?.reloading(filter).run(listener, Some(metrics), Router::new(), cancelled).await?;
    if let Some(traces) = traces {
        tokio::task::spawn_blocking(move || traces.shut_down()).await?;
    }
    Ok(ExitCode::SUCCESS)
}
