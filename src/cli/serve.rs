//! `quota-gate serve`

use std::process::ExitCode;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;

use crate::{app::App, config::Config, shutdown, telemetry};

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    telemetry::log(config.telemetry.log_format, &config.telemetry.log_filter);
    let metrics = telemetry::metrics().context("metrics cannot be collected")?;
    let cancelled = shutdown::on_signal()?;
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    App::build(config).await?.run(listener, Some(metrics), Router::new(), cancelled).await?;
    Ok(ExitCode::SUCCESS)
}
