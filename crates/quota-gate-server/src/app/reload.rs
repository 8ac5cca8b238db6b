//! SIGHUP: reads the configuration again, and applies what can change while the gate runs.

use std::{future::poll_fn, sync::Arc};

use quota_gate::domain::model_costs::ModelCosts;
use tokio::signal::unix::Signal;

use crate::{config::Config, http::Auth, reloadable::Reloadable, telemetry::LogFilter};

/// Settings that are applied. The rollout is read every second anyway.
const APPLIED: [&str; 7] =
    ["auth.tokens", "models", "level_models", "estimates", "telemetry.log_filter", "telemetry.access_log", "rollout"];

/// What a new configuration changes.
#[derive(Clone)]
pub(super) struct Reload {
    pub(super) running: Arc<Config>,
    pub(super) auth: Arc<Auth>,
    pub(super) costs: Reloadable<ModelCosts>,
    pub(super) filter: LogFilter,
}

impl Reload {
    /// Applies a new configuration at each signal.
    pub(super) async fn at_each(self, signal: &mut Signal) {
        while poll_fn(|context| signal.poll_recv(context)).await.is_some() {
            match self.apply() {
                Ok(changed) if changed.is_empty() => {
                    tracing::info!("configuration read again: tokens, costs of models and log filter are up to date");
                }
                Ok(changed) => tracing::warn!(
                    settings = changed.join(", "),
                    "configuration read again: tokens, costs of models and log filter are up to date; \
                     these settings have changed and need a restart"
                ),
                Err(error) => {
                    tracing::error!(error = %format!("{error:#}"), "the configuration was not applied; the old one stays");
                }
            }
        }
    }

    /// Applies all or nothing. Returns the changed settings that need a restart.
    fn apply(&self) -> anyhow::Result<Vec<String>> {
        let new = Config::load(self.running.file.as_deref())?;
        new.check_secret_files()?;
        let costs = new.costs()?;
        let filter = new.telemetry.filter()?;
        self.auth.replace_tokens(&new.auth.token_options())?;
        self.costs.replace(costs);
        self.filter.replace(filter);
        let applied = |setting: &str| APPLIED.iter().any(|of| setting == *of || setting.starts_with(&format!("{of}.")));
        Ok(self.running.differing_settings(&new).into_iter().filter(|setting| !applied(setting)).collect())
    }
}
