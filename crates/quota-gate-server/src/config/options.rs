//! Converts sections to the options of other modules.

use std::{path::PathBuf, sync::Arc};

use chrono::TimeDelta;
use quota_gate::{
    audit::health::HealthLimits,
    domain::{
        InvalidInput,
        level::LevelName,
        model_costs::{self, ModelCosts},
        model_name::ModelName,
        subscription::PriceLevels,
    },
    jobs::flusher::FlusherOptions,
    runtime::{JobOptions, RuntimeOptions},
    store::{
        postgres::PostgresOptions,
        redis::{BatcherOptions, RedisOptions},
    },
};
use tracing_subscriber::EnvFilter;

use super::{
    Auth, Billing, Config, ConfigError, DualWrite, Estimates, Flusher, Postgres, RateLimits, Redis, Resetter, Server,
    Telemetry, Upstream, Webhooks, ms,
};
use crate::{
    app,
    billing::Packs,
    http::{JwtOptions, Limits, RateLimitOptions, ServerOptions, TokenOptions},
    openai::UpstreamOptions,
    outbox::{old_credits::OldCreditsOptions, webhook::WebhookOptions},
    telemetry,
};

impl Config {
    /// Returns the options of this process' runtime.
    ///
    /// # Errors
    /// If a setting is missing or invalid.
    pub fn runtime_options(&self) -> anyhow::Result<RuntimeOptions> {
        Ok(RuntimeOptions {
            postgres: app::postgres(self)?,
            redis: app::redis(self)?,
            partitions: self.partitions()?,
            time_zone: self.time_zone()?,
            levels: self.levels()?,
            meters: self.meters()?,
            reservation_secret: self.auth.reservation_secret()?,
            batcher: BatcherOptions::from(&self.redis),
            idempotency_ttl: std::time::Duration::from_secs(self.quota.idempotency_ttl_seconds),
            on_redis_failure: self.quota.on_redis_failure,
            decision_timeout: ms(self.quota.decision_timeout_ms),
            jobs: self.job_options()?,
        })
    }

    /// Returns the options of this process' jobs.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn job_options(&self) -> Result<JobOptions, ConfigError> {
        let file: Option<PathBuf> = self.file.clone();
        let rollout = move || Self::rollout_of(file.as_deref()).map_err(|error| error.to_string());
        Ok(JobOptions {
            flusher: self.flusher.enabled.then(|| self.flusher.options(self.redis.stream_bytes_max)),
            reset_daily_at: if self.resetter.enabled { Some(self.daily_at()?) } else { None },
            rollout: Arc::new(rollout),
            health: HealthLimits::from(&self.resetter),
            ..JobOptions::default()
        })
    }
}

impl Flusher {
    fn options(&self, stream_bytes_max: u64) -> FlusherOptions {
        FlusherOptions {
            interval: ms(self.interval_ms),
            batch_events_max: self.batch_events_max,
            stream_bytes_alarm: stream_bytes_max / 2,
        }
    }
}

impl From<&Resetter> for HealthLimits {
    fn from(section: &Resetter) -> Self {
        Self {
            reset_overdue_after: TimeDelta::hours(section.overdue_after_hours.into()),
            flush_lag_max: TimeDelta::seconds(section.flush_lag_max_seconds.into()),
        }
    }
}

impl From<&Redis> for BatcherOptions {
    fn from(section: &Redis) -> Self {
        Self {
            operations_max: section.batch_operations_max,
            calls_in_flight_max: section.calls_in_flight_max,
            queue_length_max: section.queue_length_max,
            queue_timeout: ms(section.queue_timeout_ms),
            stream_bytes_max: section.stream_bytes_max,
            ..Self::default()
        }
    }
}

impl TryFrom<&Redis> for RedisOptions {
    type Error = ConfigError;

    fn try_from(section: &Redis) -> Result<Self, ConfigError> {
        let url = section.url.required("redis.url", "set REDIS_URL, for example redis://:password@host:6379")?;
        Ok(Self {
            connect_timeout: ms(section.connect_timeout_ms),
            response_timeout: ms(section.response_timeout_ms),
            ..Self::new(url)
        })
    }
}

impl TryFrom<&Postgres> for PostgresOptions {
    type Error = ConfigError;

    fn try_from(section: &Postgres) -> Result<Self, ConfigError> {
        let example = "set DATABASE_URL, for example postgres://user:password@host/database";
        Ok(Self {
            url: section.url.required("postgres.url", example)?.to_owned(),
            connections_max: section.connections_max,
            acquire_timeout: ms(section.acquire_timeout_ms),
            statement_timeout: ms(section.statement_timeout_ms),
        })
    }
}

impl From<&Server> for ServerOptions {
    fn from(section: &Server) -> Self {
        Self {
            connections_max: section.connections_max,
            header_read_timeout: ms(section.header_read_timeout_ms),
            write_stall_timeout: ms(section.write_stall_timeout_ms),
            stop_delay: ms(section.stop_delay_ms),
            drain_timeout: ms(section.drain_timeout_ms),
        }
    }
}

impl From<&Server> for Limits {
    fn from(section: &Server) -> Self {
        Self {
            requests_in_flight_max: section.requests_in_flight_max,
            settlements_in_flight_max: section.settlements_in_flight_max,
            quota_streams_max: section.quota_streams_max,
            quota_streams_per_user_max: section.quota_streams_per_user_max,
            request_timeout: ms(section.request_timeout_ms),
            body_bytes_max: section.body_bytes_max,
        }
    }
}

impl From<&RateLimits> for RateLimitOptions {
    fn from(section: &RateLimits) -> Self {
        let RateLimits { per_address, unauthenticated_per_address, per_token } = *section;
        Self { per_address, unauthenticated_per_address, per_token }
    }
}

impl<'a> From<&'a Auth> for JwtOptions<'a> {
    fn from(section: &'a Auth) -> Self {
        Self {
            secret: section.jwt_secret.expose(),
            jwks: &section.jwks,
            issuer: &section.jwt_issuer,
            audience: &section.jwt_audience,
            leeway_seconds: section.jwt_leeway_seconds,
        }
    }
}

impl Auth {
    fn reservation_secret(&self) -> Result<Vec<u8>, ConfigError> {
        let secret = &self.reservation_secret;
        let secret = secret.required("auth.reservation_secret", "create one with `openssl rand -hex 32`")?;
        Ok(secret.as_bytes().to_vec())
    }

    /// Returns the tokens of services.
    pub(crate) fn token_options(&self) -> Vec<TokenOptions> {
        let tokens = self.tokens.iter();
        tokens
            .map(|(id, token)| TokenOptions {
                id: id.clone(),
                sha256: token.sha256.clone(),
                scopes: token.scopes.clone(),
            })
            .collect()
    }
}

impl<'a> TryFrom<&'a Upstream> for UpstreamOptions<'a> {
    type Error = ConfigError;

    fn try_from(section: &'a Upstream) -> Result<Self, ConfigError> {
        Ok(Self {
            url: &section.url,
            key: section.key.required("upstream.key", "set it to the API key of the upstream")?,
            connect_timeout: ms(section.connect_timeout_ms),
            head_timeout: ms(section.head_timeout_ms),
            idle_timeout: ms(section.idle_timeout_ms),
            stream_usage: section.stream_usage,
        })
    }
}

impl Config {
    /// Returns the costs of models, and which levels may use them.
    ///
    /// # Errors
    /// If a price is invalid, `default` is missing, or a level or a model has no valid name.
    pub(crate) fn costs(&self) -> Result<ModelCosts, InvalidInput> {
        let prices = self.models.prices.iter().map(|(name, price)| Ok((name.clone(), price.of_model(name)?)));
        let costs =
            ModelCosts::by_price(prices.collect::<Result<Vec<_>, InvalidInput>>()?)?.unlisted(self.models.unlisted);
        let invalid = |error: InvalidInput| InvalidInput { field: "models.when_exhausted", rule: error.rule };
        let when_exhausted = ModelName::from_column(&self.models.when_exhausted).map_err(invalid)?;
        if let Some(model) = &when_exhausted {
            costs.of(Some(model.as_str())).map_err(invalid)?;
        }
        let levels = self.level_models.iter().map(|(level, models)| {
            let invalid = |error: InvalidInput| InvalidInput { field: "level_models", rule: error.to_string() };
            Ok((LevelName::parse(level).map_err(invalid)?, models.clone()))
        });
        let Estimates { input_tokens, output_tokens } = self.estimates;
        costs
            .estimates(model_costs::Estimates { input_tokens, output_tokens })
            .when_exhausted(when_exhausted)
            .level_models(&levels.collect::<Result<_, InvalidInput>>()?)
    }
}

impl<'a> From<&'a Webhooks> for WebhookOptions<'a> {
    fn from(section: &'a Webhooks) -> Self {
        Self { url: &section.url, secret: section.secret.expose(), timeout: ms(section.timeout_ms) }
    }
}

impl<'a> From<&'a DualWrite> for OldCreditsOptions<'a> {
    fn from(section: &'a DualWrite) -> Self {
        Self { url: &section.url, token: section.token.expose(), timeout: ms(section.timeout_ms) }
    }
}

impl Telemetry {
    /// Returns the filter of log lines.
    ///
    /// # Errors
    /// If it is invalid.
    pub fn filter(&self) -> Result<EnvFilter, ConfigError> {
        let filter = EnvFilter::try_new(&self.log_filter);
        let filter = filter.map_err(|error| ConfigError::Invalid {
            setting: "telemetry.log_filter".to_owned(),
            problem: format!("{:?} is not a filter: {error}", self.log_filter),
        })?;
        Ok(telemetry::with_access_log(filter, self.access_log))
    }
}

impl Billing {
    /// Returns the level of each price or product.
    ///
    /// # Errors
    /// If a level's name is invalid.
    pub(crate) fn price_levels(&self) -> Result<PriceLevels, InvalidInput> {
        PriceLevels::new(&self.levels)
    }

    /// What each price, product or lookup key gives as a pack.
    ///
    /// # Errors
    /// If a pack is invalid.
    pub(crate) fn packs(&self) -> Result<Packs, InvalidInput> {
        Packs::new(&self.packs)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::from_toml, *};

    #[tokio::test]
    async fn defaults_of_the_library_are_those_of_the_configuration() {
        let (database, redis) = ("postgres://postgres@localhost/quota", "redis://localhost");
        let secret = "00112233445566778899aabbccddeeff";
        let text = format!(
            "[postgres]\nurl = {database:?}\n[redis]\nurl = {redis:?}\n[auth]\nreservation_secret = {secret:?}\n"
        );
        let configured = from_toml(&text).unwrap().runtime_options().unwrap();
        let default = RuntimeOptions::new(database, redis, secret.as_bytes()).unwrap();
        let shown = |options: &RuntimeOptions| {
            // The debug output of the stores does not show their options.
            let RuntimeOptions { levels, meters, batcher, jobs, partitions, time_zone, .. } = options;
            let rest = (options.idempotency_ttl, options.on_redis_failure, options.decision_timeout);
            format!("{levels:?} {meters:?} {batcher:?} {jobs:?} {partitions:?} {time_zone:?} {rest:?}")
        };
        assert_eq!(shown(&configured), shown(&default));
        let config = from_toml(&text).unwrap();
        let stores = format!(
            "{:?} {:?}",
            RedisOptions::try_from(&config.redis).unwrap(),
            PostgresOptions::try_from(&config.postgres).unwrap()
        );
        assert_eq!(stores, format!("{:?} {:?}", RedisOptions::new(redis), PostgresOptions::new(database)));
    }
}
