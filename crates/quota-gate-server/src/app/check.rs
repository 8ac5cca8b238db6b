//! Builds everything that `serve` builds from the configuration, without starting it: `doctor` reports what `serve`
//! would refuse.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc};

use super::parts;
use crate::{
    config::Config,
    http::{RateLimitOptions, RateLimits, listener::listen},
};

/// Returns what `serve` would refuse: the part, and the reason.
pub async fn refusals(config: &Config) -> Vec<(&'static str, anyhow::Error)> {
    let rate_limits = Arc::new(RateLimits::new(&RateLimitOptions::from(&config.rate_limits)));
    let outcomes = [
        ("the secrets", config.check_secret_files().map_err(Into::into)),
        ("the settings of the gate", config.job_options().map(drop).map_err(Into::into)),
        ("[auth]", parts::auth(config, rate_limits).await.map(drop)),
        ("[meters]", config.meters().map(drop).map_err(Into::into)),
        ("[models]", parts::costs(config).map(drop)),
        ("[upstream]", parts::upstream(config).map(drop)),
        ("[billing]", parts::billing(config).map(drop)),
        ("[webhooks]", parts::webhook(config).map(drop)),
        ("[dual_write]", parts::old_credits(config).map(drop)),
        ("[telemetry]", config.traces().map(drop).map_err(Into::into)),
        ("[telemetry]", config.telemetry.filter().map(drop).map_err(Into::into)),
        ("server.listen", can_listen(config.server.listen)),
        ("envoy.listen", config.envoy.listen.map_or(Ok(()), can_listen)),
    ];
    outcomes.into_iter().filter_map(|(part, outcome)| Some((part, outcome.err()?))).collect()
}

/// A port in use is no reason for a refusal: the gate that is running may use it.
fn can_listen(address: SocketAddr) -> anyhow::Result<()> {
    match listen(address) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            Err(anyhow::Error::new(error).context(format!("cannot listen on {address}")))
        }
        _ => Ok(()),
    }
}
