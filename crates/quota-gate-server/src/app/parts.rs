//! The parts of the program that the configuration describes.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use quota_gate::{
    audit::verify::Verifier,
    domain::model_costs::ModelCosts,
    gate::Gate,
    jobs::resetter::Resetter,
    runtime::Runtime,
    store::{
        postgres::{Postgres, PostgresOptions, Settings},
        redis::{Redis, RedisOptions},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    billing::{Billing, PackRules, Packs, TermsReader},
    config::{Config, ms},
    http::{AppParts, AppState, Auth, Limits, MeterSettings, RateLimitOptions, RateLimits, Readiness, Shop, cors},
    openai::{Proxy, ProxyLimits, Upstream, UpstreamOptions},
    outbox::{
        Dispatcher,
        dual_writes::DualWrites,
        notifications::Notifications,
        old_credits::{OldCredits, OldCreditsOptions},
        webhook::{Webhook, WebhookOptions},
    },
    reloadable::Reloadable,
};

/// Postgres.
///
/// # Errors
/// If its URL is missing or invalid.
pub fn postgres(config: &Config) -> anyhow::Result<Postgres> {
    let postgres = Postgres::new(&PostgresOptions::try_from(&config.postgres)?)?;
    Ok(if config.dual_write.url.is_empty() { postgres } else { postgres.with_dual_write() })
}

/// Postgres, with up-to-date tables, of the installation that the configuration describes.
///
/// # Errors
/// If it was set up with other partitions or another time zone.
pub async fn settled_postgres(config: &Config) -> anyhow::Result<Postgres> {
    let postgres = postgres(config)?;
    postgres.check_schema().await?;
    let settings = Settings { partitions: config.partitions()?, time_zone: config.time_zone()? };
    postgres.settle_settings(&settings).await?;
    Ok(postgres)
}

/// Redis.
///
/// # Errors
/// If its URL is missing or invalid.
pub fn redis(config: &Config) -> anyhow::Result<Redis> {
    Ok(Redis::new(&RedisOptions::try_from(&config.redis)?)?)
}

/// The old credits system, if one is configured.
///
/// # Errors
/// If its URL is invalid.
pub fn old_credits(config: &Config) -> anyhow::Result<Option<OldCredits>> {
    if config.dual_write.url.is_empty() {
        return Ok(None);
    }
    Ok(Some(OldCredits::new(&OldCreditsOptions::from(&config.dual_write))?))
}

/// Everything that handlers can reach.
pub(super) async fn state(
    config: &Config,
    runtime: &Runtime,
    metrics: Option<PrometheusHandle>,
    stopping: CancellationToken,
) -> anyhow::Result<AppState> {
    let gate = runtime.gate();
    let rate_limits = Arc::new(RateLimits::new(&RateLimitOptions::from(&config.rate_limits)));
    let costs = Reloadable::new(costs(config)?);
    let shop = Shop::new(costs.clone(), packs(config)?.offered());
    let auth = auth(config, Arc::clone(&rate_limits)).await?;
    Ok(AppState::new(AppParts {
        gate: gate.clone(),
        meter: Arc::new(MeterSettings::chat()),
        meter_names: std::iter::once("chat".to_owned()).chain(config.meters.keys().cloned()).collect(),
        auth: Arc::new(auth),
        rate_limits,
        resetter: Arc::new(Resetter::new(gate)),
        health: Arc::new(runtime.health().clone()),
        verifier: Arc::new(Verifier::new(gate)),
        quota_watcher: runtime.quota_watcher().clone(),
        costs,
        shop: shop.clone(),
        readiness: Arc::new(Readiness { stopping }),
        metrics,
        proxy: proxy(config, runtime, shop)?,
        billing: billing(config)?.map(Arc::new),
        transfers_enabled: config.transfers.enabled,
        limits: Limits::from(&config.server),
        cors: cors(&config.server.cors_origins)?,
        trusted_proxies: config.server.trusted_proxies.clone(),
    }))
}

/// The states of the configured meters beside the chat. The start has stored them. Prices and levels of models are the
/// chat's: a request of another meter costs its AP, or the default cost.
pub(super) fn meters(config: &Config, gate: &Gate, state: &AppState) -> anyhow::Result<Vec<AppState>> {
    let levels = gate.levels();
    let configured = |name: &str| config.meters.get(name);
    let known = levels.meters().iter().filter_map(|meter| Some((meter, configured(meter.name.as_str())?)));
    let settings = known.map(|(meter, section)| MeterSettings {
        code: meter.code,
        name: meter.name.to_string(),
        unit: Some(section.unit.clone()),
        hold_seconds_max: section.hold_seconds_max,
        default_cost: section.default_cost,
    });
    let costs = ModelCosts::new(&BTreeMap::from([("default".to_owned(), 1)]))?;
    Ok(settings.map(|meter| state.of_meter(meter, costs.clone())).collect())
}

/// What identifies callers.
pub(super) async fn auth(config: &Config, rate_limits: Arc<RateLimits>) -> anyhow::Result<Auth> {
    Ok(Auth::new(&(&config.auth).into(), &config.auth.token_options(), rate_limits).await?)
}

/// The costs of models, and which levels may use them.
pub(super) fn costs(config: &Config) -> anyhow::Result<ModelCosts> {
    Ok(config.costs()?)
}

/// The receiver of webhooks, if one is configured.
pub(super) fn webhook(config: &Config) -> anyhow::Result<Option<Webhook>> {
    let webhooks = &config.webhooks;
    if webhooks.url.is_empty() {
        return Ok(None);
    }
    Ok(Some(Webhook::new(&WebhookOptions::from(webhooks))?))
}

/// Runs the outboxes whose receivers are configured.
pub(super) async fn run_outboxes(config: &Config, runtime: &Runtime) -> anyhow::Result<()> {
    let (postgres, clock) = (runtime.gate().postgres().clone(), runtime.gate().clock().clone());
    let webhooks = &config.webhooks;
    postgres.set_notifies(!webhooks.url.is_empty()).await?;
    if let Some(webhook) = webhook(config)? {
        let outbox = Notifications { postgres: postgres.clone(), webhook };
        runtime.run(Dispatcher::new(outbox, webhooks.requests_in_flight_max, ms(webhooks.timeout_ms), clock.clone()));
    }
    if let Some(old) = old_credits(config)? {
        let dual_write = &config.dual_write;
        let outbox = DualWrites { postgres, old };
        runtime.run(Dispatcher::new(outbox, dual_write.requests_in_flight_max, ms(dual_write.timeout_ms), clock));
    }
    Ok(())
}

/// The proxy, if an upstream is configured.
fn proxy(config: &Config, runtime: &Runtime, shop: Shop) -> anyhow::Result<Option<Proxy>> {
    let Some(server) = upstream(config)? else { return Ok(None) };
    let upstream = &config.upstream;
    let limits = ProxyLimits {
        requests_in_flight_max: upstream.requests_in_flight_max,
        body_bytes_max: upstream.body_bytes_max,
        body_timeout: ms(config.server.request_timeout_ms),
    };
    let client_gone = upstream.client_gone;
    Ok(Some(Proxy::new(runtime.gate(), server, shop, client_gone, limits)))
}

/// The upstream, if one is configured.
pub(super) fn upstream(config: &Config) -> anyhow::Result<Option<Upstream>> {
    let upstream = &config.upstream;
    if upstream.url.is_empty() {
        return Ok(None);
    }
    Ok(Some(Upstream::new(&UpstreamOptions::try_from(upstream)?)?))
}

/// The packs that users can buy.
fn packs(config: &Config) -> anyhow::Result<Packs> {
    config.billing.packs().context("[billing.packs]")
}

/// What reads the events of the billing system, if one is configured.
pub(super) fn billing(config: &Config) -> anyhow::Result<Option<Billing>> {
    let billing = &config.billing;
    let prices = billing.price_levels().context("[billing.levels]")?;
    let (statuses, pauses) = (billing.paid_statuses.clone(), billing.paid_pauses.clone());
    let terms = TermsReader::new(billing.cycle, billing.user_metadata_key.clone(), statuses, pauses)?;
    let packs = PackRules {
        packs: packs(config)?,
        metadata_key: billing.pack_metadata_key.clone(),
        need_plan: billing.packs_need_plan,
    };
    let secret = billing.webhook_secret.expose();
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Billing::new(secret, terms, prices, packs)?))
}
