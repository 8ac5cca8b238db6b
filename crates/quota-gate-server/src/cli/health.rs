//! `quota-gate health`: checks whether the gate on this machine is ready. For containers, whose images have no curl.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use tokio::time::timeout;

use crate::cli::output::say;
use crate::{config::Config, outbound};

const ANSWER_MAX: Duration = Duration::from_secs(3);

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut address = config.server.listen;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let url = format!("http://{address}/readyz");
    let request = outbound::client(ANSWER_MAX)?.get(url.parse()?);
    let answer = timeout(ANSWER_MAX, request).await.with_context(|| format!("{url} did not answer"))?;
    let status = answer.map_err(|error| anyhow::anyhow!("{url}: {}", outbound::describe(&error)))?.status();
    say!("{url}: {}", status.as_u16());
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
