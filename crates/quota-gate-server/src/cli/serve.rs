//! `quota-gate serve`: runs the gate.

use std::process::ExitCode;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;

use crate::{app::App, config::Config, shutdown, telemetry};

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let traces = config.traces()?;
    telemetry::log(config.telemetry.log_format, &config.telemetry.log_filter, traces.as_ref());
    if config.redis.stream_entries_max.is_some() {
        tracing::warn!("redis.stream_entries_max has no effect any more; set redis.stream_bytes_max");
    }
    let metrics = telemetry::metrics().context("cannot collect metrics")?;
    let cancelled = shutdown::on_signal()?;
    let listen = config.server.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} (server.listen)"))?;
    App::build(config).await?.run(listener, Some(metrics), Router::new(), cancelled).await?;
    if let Some(traces) = traces {
        tokio::task::spawn_blocking(move || traces.shut_down()).await?;
    }
    Ok(ExitCode::SUCCESS)
}
