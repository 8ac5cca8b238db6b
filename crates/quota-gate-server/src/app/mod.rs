//! The composition root: builds every component once, in order, and runs them until told to stop.

mod stores;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    billing::Billing,
    config::{self, Config, ms},
    envoy::RateLimitService,
    http::{
        AppState, Auth, JwtOptions, Limits, RateLimitOptions, RateLimits, Readiness, ServerOptions, TokenOptions,
        router, serve,
    },
    openai::{Proxy, ProxyLimits, Upstream, UpstreamOptions},
    outbox::{
        Dispatcher,
        dual_writes::DualWrites,
        notifications::Notifications,
        webhook::{Webhook, WebhookOptions},
    },
    telemetry,
};
use quota_gate::{
    audit::{repair::Repairer, verify::Verifier},
    domain::{calendar::Calendar, clock::Clock, model_costs::ModelCosts, subscription::PriceLevels},
    gate::{Gate, GateParts, ReservationSigner},
    jobs::{
        flusher::Flusher,
        gauges::Gauges,
        health::HealthCheck,
        inbox_worker::InboxWorker,
        level_sync::LevelSync,
        quota_watcher::QuotaWatcher,
        resetter::Resetter,
        rollout_sync::{self, RolloutSync},
        schedule,
        sweeper::Sweeper,
    },
    store::{
        postgres::Postgres,
        redis::{BatcherOptions, Redis, Script},
    },
};

pub use self::stores::{old_credits, postgres, redis, settled_postgres};

/// Far less than it takes to demote a primary, give it another's data and promote it again; long enough that under load no
/// call asks.
const IDENTITY_TRUST: Duration = Duration::from_millis(500);

/// Closing waits for every statement under way, and at the end there may be one that Postgres does not answer.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Everything that a gate process is made of.
#[derive(Debug, Clone)]
pub struct App {
    config: Arc<Config>,
    clock: Clock,
    /// Redis.
    pub redis: Redis,
    /// Postgres.
    pub postgres: Postgres,
    /// The gate.
    pub gate: Gate,
}

impl App {
    /// Connects, checks that both stores are fit and the tables up to date, and starts a gate.
    ///
    /// # Errors
    /// With what is wrong and what to do.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let clock = Clock::machine();
        let calendar = Calendar::new(config.time_zone()?);
        let partitions = config.partitions()?;
        let postgres = settled_postgres(&config).await?;
        postgres.ensure_watermarks(partitions, clock.now()).await?;
        let levels = postgres.sync_levels(&config.levels()?, clock.now()).await?;
        postgres.ensure_log_partitions(clock.now(), 1).await?;

        let redis = redis(&config)?;
        redis.check_fitness().await.context("Redis is not fit to keep charges")?;
        let secret =
            config.auth.reservation_secret.required("auth.reservation_secret", "`openssl rand -hex 32` makes one")?;
        let gate = Gate::start(GateParts {
            redis: redis.clone(),
            script: Script::default(),
            postgres: postgres.clone(),
            partitions,
            calendar,
            clock: clock.clone(),
            levels,
            signer: ReservationSigner::new(secret.as_bytes())?,
            batcher: BatcherOptions {
                operations_max: config.redis.batch_operations_max,
                calls_in_flight_max: config.redis.calls_in_flight_max,
                queue_length_max: config.redis.queue_length_max,
                queue_timeout: ms(config.redis.queue_timeout_ms),
                stream_entries_max: config.redis.stream_entries_max,
                identity_trust: IDENTITY_TRUST,
            },
            idempotency_ttl: Duration::from_secs(config.quota.idempotency_ttl_seconds),
            on_redis_failure: config.quota.on_redis_failure,
            deadline: ms(config.quota.decision_timeout_ms),
        });
        gate.open_partitions().await.context("the partitions cannot be opened")?;
        Ok(Self { config: Arc::new(config), clock, redis, postgres, gate })
    }

    /// Serves until cancelled, and `also` these routes. Then requests end, and what they charged is flushed.
    ///
    /// # Errors
    /// If a setting is wrong.
    pub async fn run(
        self,
        listener: TcpListener,
        metrics: Option<PrometheusHandle>,
        also: Router,
        cancelled: CancellationToken,
    ) -> anyhow::Result<()> {
        let config = &self.config;
        let drain_timeout = ms(config.server.drain_timeout_ms);
        let quota_watcher = QuotaWatcher::new(self.gate.clone(), self.redis.clone());
        tokio::spawn(quota_watcher.clone().run(cancelled.clone()));
        let state = self.state(metrics.clone(), quota_watcher.clone(), cancelled.clone()).await?;
        let options = ServerOptions {
            connections_max: config.server.connections_max,
            header_read_timeout: ms(config.server.header_read_timeout_ms),
            write_stall_timeout: ms(config.server.write_stall_timeout_ms),
            stop_delay: ms(config.server.stop_delay_ms),
            drain_timeout,
        };
        if config.resetter.enabled {
            let at = config.daily_at()?;
            tokio::spawn(schedule::run(self.resetter(), at, self.clock.clone(), cancelled.clone()));
        }
        // The first message is decided as the rollout says.
        let mut seen = rollout_sync::RolloutSeen::default();
        self.rollout_sync().step(&mut seen).await.context("the rollout cannot be looked up")?;
        tokio::spawn(self.rollout_sync().run(seen, cancelled.clone()));
        tokio::spawn(self.level_sync().run(cancelled.clone()));
        if let Some(metrics) = metrics {
            let gauges = Gauges { health: self.health(), verifier: self.verifier(), calendar: self.gate.calendar() };
            tokio::spawn(gauges.run(cancelled.clone()));
            tokio::spawn(telemetry::upkeep(metrics, cancelled.clone()));
        }
        tokio::spawn(self.inbox_worker().run(cancelled.clone()));
        let notifier = self.notifier()?;
        self.postgres.set_notifies(notifier.is_some()).await?;
        if let Some(notifier) = notifier {
            tokio::spawn(notifier.run(cancelled.clone()));
        }
        if let Some(old) = old_credits(config)? {
            let config::DualWrite { at_once, timeout_ms, .. } = config.dual_write;
            let outbox = DualWrites { postgres: self.postgres.clone(), old };
            let dispatcher = Dispatcher { outbox, at_once, timeout: ms(timeout_ms), clock: self.clock.clone() };
            tokio::spawn(dispatcher.run(cancelled.clone()));
        }
        if let Some(listen) = config.envoy.listen {
            let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
            tracing::info!(listen_for_envoy = %listener.local_addr()?, "the gate is open for Envoy");
            let service = RateLimitService::new(&state);
            let serving = crate::envoy::serve(listener, service, cancelled.clone());
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the gate is closed for Envoy");
                }
            });
        }
        // The flusher ends after the requests, not with them.
        let requests_ended = CancellationToken::new();
        let flushing = config
            .flusher
            .enabled
            .then(|| tokio::spawn(self.flusher().run(ms(config.flusher.interval_ms), requests_ended.clone())));
        tracing::info!(listen = %listener.local_addr()?, "the gate is open");
        serve(listener, also.merge(router(state.clone())), options, cancelled).await;
        // What was cut off is settled and flushed all the same, within one time for both.
        let deadline = Instant::now() + drain_timeout;
        if timeout_at(deadline, state.settled()).await.is_err() {
            tracing::warn!("some settlements took too long; their holds expire");
        }
        requests_ended.cancel();
        if let Some(flushing) = flushing
            && timeout_at(deadline, flushing).await.is_err()
        {
            tracing::warn!("the last flush took too long; the events stay in Redis for the next gate");
        }
        if timeout(CLOSE_MAX, self.postgres.close()).await.is_err() {
            tracing::debug!("a connection to Postgres is still in use; it ends with the process");
        }
        Ok(())
    }

    /// Carries usage to Postgres.
    #[must_use]
    pub fn flusher(&self) -> Flusher {
        Flusher {
            gate: self.gate.clone(),
            redis: self.redis.clone(),
            postgres: self.postgres.clone(),
            calendar: self.gate.calendar(),
            clock: self.clock.clone(),
            batch_events_max: self.config.flusher.batch_events_max,
            stream_entries_alarm: u64::from(self.config.redis.stream_entries_max) / 2,
        }
    }

    /// Tells Redis of changes of level that it has not heard of.
    #[must_use]
    pub fn level_sync(&self) -> LevelSync {
        LevelSync { gate: self.gate.clone(), postgres: self.postgres.clone() }
    }

    /// Keeps the rollout as the newest change has it.
    #[must_use]
    pub fn rollout_sync(&self) -> RolloutSync {
        let file = self.config.file.clone();
        let configured =
            move || -> Result<_, String> { Config::rollout_of(file.as_deref()).map_err(|error| error.to_string()) };
        RolloutSync {
            gate: self.gate.clone(),
            postgres: self.postgres.clone(),
            configured: Arc::new(configured),
            clock: self.clock.clone(),
        }
    }

    /// Applies what Postgres accepted while Redis was away.
    #[must_use]
    pub fn inbox_worker(&self) -> InboxWorker {
        InboxWorker { gate: self.gate.clone(), postgres: self.postgres.clone(), clock: self.clock.clone() }
    }

    /// Tells how the jobs are.
    fn health(&self) -> HealthCheck {
        HealthCheck {
            redis: self.redis.clone(),
            postgres: self.postgres.clone(),
            partitions: self.gate.partitions(),
            clock: self.clock.clone(),
            reset_overdue_after: TimeDelta::hours(self.config.resetter.overdue_after_hours.into()),
            flush_lag_max: TimeDelta::seconds(self.config.resetter.flush_lag_max_seconds.into()),
            started_at: self.clock.now(),
        }
    }

    /// Tells the product's own systems, if there is a webhook.
    fn notifier(&self) -> anyhow::Result<Option<Dispatcher<Notifications>>> {
        let config::Webhooks { url, secret, timeout_ms, at_once } = &self.config.webhooks;
        if url.is_empty() {
            return Ok(None);
        }
        let timeout = ms(*timeout_ms);
        let webhook = Webhook::new(&WebhookOptions { url, secret: secret.expose(), timeout })?;
        let outbox = Notifications { postgres: self.postgres.clone(), webhook };
        Ok(Some(Dispatcher { outbox, at_once: *at_once, timeout, clock: self.clock.clone() }))
    }

    /// Compares the stores.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier { redis: self.redis.clone(), postgres: self.postgres.clone(), partitions: self.gate.partitions() }
    }

    /// Makes the stores agree after what no gate has done.
    #[must_use]
    pub fn repairer(&self) -> Repairer {
        Repairer {
            verifier: self.verifier(),
            gate: self.gate.clone(),
            postgres: self.postgres.clone(),
            calendar: self.gate.calendar(),
            clock: self.clock.clone(),
        }
    }

    /// Brings due rows into the current period.
    #[must_use]
    pub fn resetter(&self) -> Resetter {
        Resetter {
            postgres: self.postgres.clone(),
            calendar: self.gate.calendar(),
            clock: self.clock.clone(),
            sweeper: Sweeper {
                redis: self.redis.clone(),
                postgres: self.postgres.clone(),
                partitions: self.gate.partitions(),
                calendar: self.gate.calendar(),
                clock: self.clock.clone(),
            },
        }
    }

    /// The proxy, if an upstream is configured.
    fn proxy(&self) -> anyhow::Result<Option<Proxy>> {
        let config = &self.config.upstream;
        if config.url.is_empty() {
            return Ok(None);
        }
        let upstream = Upstream::new(&UpstreamOptions {
            url: &config.url,
            key: config.key.required("upstream.key", "it is the API key of the upstream")?,
            connect_timeout: ms(config.connect_timeout_ms),
            head_timeout: ms(config.head_timeout_ms),
            idle_timeout: ms(config.idle_timeout_ms),
        })?;
        let limits = ProxyLimits {
            requests_in_flight_max: config.requests_in_flight_max,
            body_bytes_max: config.body_bytes_max,
            body_timeout: ms(self.config.server.request_timeout_ms),
        };
        let costs = ModelCosts::new(&self.config.models)?;
        Ok(Some(Proxy::new(&self.gate, upstream, costs, config.client_gone, limits)))
    }

    async fn state(
        &self,
        metrics: Option<PrometheusHandle>,
        quota_watcher: QuotaWatcher,
        stopping: CancellationToken,
    ) -> anyhow::Result<AppState> {
        let auth = &self.config.auth;
        let jwt = JwtOptions {
            secret: auth.jwt_secret.expose(),
            jwks: &auth.jwks,
            issuer: &auth.jwt_issuer,
            audience: &auth.jwt_audience,
            leeway_seconds: auth.jwt_leeway_seconds,
        };
        let token = |(id, token): (&String, &config::Token)| TokenOptions {
            id: id.clone(),
            sha256: token.sha256.clone(),
            scopes: token.scopes.clone(),
        };
        let tokens: Vec<TokenOptions> = auth.tokens.iter().map(token).collect();
        let config::RateLimits { per_address, unauthenticated_per_address, per_token } = self.config.rate_limits;
        let rate_limits =
            Arc::new(RateLimits::new(&RateLimitOptions { per_address, unauthenticated_per_address, per_token }));
        let auth = Auth::new(&jwt, &tokens, Arc::clone(&rate_limits)).await?;
        let limits = Limits {
            requests_in_flight_max: self.config.server.requests_in_flight_max,
            settlements_in_flight_max: self.config.server.settlements_in_flight_max,
            quota_streams_max: self.config.server.quota_streams_max,
            request_timeout: ms(self.config.server.request_timeout_ms),
            body_bytes_max: self.config.server.body_bytes_max,
        };
        Ok(AppState::new(
            self.gate.clone(),
            (auth, rate_limits),
            (self.resetter(), self.health(), self.rollout_sync(), quota_watcher, self.verifier()),
            Readiness { stopping },
            metrics,
            (ModelCosts::new(&self.config.models)?, self.proxy()?, billing(&self.config)?),
            limits,
        ))
    }
}

/// What understands the billing system's events, if there is one.
fn billing(config: &Config) -> anyhow::Result<Option<Billing>> {
    let config::Billing { webhook_secret, user_metadata_key, levels } = &config.billing;
    let prices = PriceLevels::new(levels).context("[billing.levels]")?;
    let secret = webhook_secret.expose();
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Billing::new(secret, user_metadata_key.clone(), prices)?))
}
