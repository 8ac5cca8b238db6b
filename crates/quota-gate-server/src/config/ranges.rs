//! The range of each number. A value outside, such as a timeout of 0, would make the gate fail in ways that are hard to
//! explain, so it is refused.

use std::{fmt::Display, ops::RangeInclusive};

use super::{Config, ConfigError};
use quota_gate::domain::hold::Ttl;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// For numbers of things that take memory or tasks.
const MANY: u64 = 10_000_000;

/// Most AP of one message.
const AP_MAX: u64 = 1_000_000;

/// More than any message has.
const MANY_TOKENS: u64 = 10_000_000;

impl Config {
    /// Checks every number.
    pub(super) fn check_ranges(&self) -> Result<(), ConfigError> {
        for (setting, value, range) in self.integers() {
            check(setting, &value, &range)?;
        }
        for (setting, value, range) in self.fractions() {
            check(setting, &value, &range)?;
        }
        for (name, meter) in &self.meters {
            let hold_max = u64::from(Ttl::METER_SECONDS_MAX);
            check(&format!("meters.{name}.hold_seconds_max"), &meter.hold_seconds_max.into(), &(1..=hold_max))?;
            check(&format!("meters.{name}.default_cost"), &meter.default_cost.into(), &(1..=AP_MAX))?;
        }
        Ok(())
    }

    #[rustfmt::skip]
    fn integers(&self) -> Vec<(&'static str, u64, RangeInclusive<u64>)> {
        let Self { server, redis, postgres, quota, upstream, dual_write, webhooks, flusher, resetter, .. } = self;
        let Self { auth, rate_limits, estimates, .. } = self;
        let many = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        vec![
            ("server.request_timeout_ms", server.request_timeout_ms, 1..=DAY_MS),
            ("server.header_read_timeout_ms", server.header_read_timeout_ms, 1..=DAY_MS),
            ("server.write_stall_timeout_ms", server.write_stall_timeout_ms, 1..=DAY_MS),
            ("server.stop_delay_ms", server.stop_delay_ms, 0..=DAY_MS),
            ("server.drain_timeout_ms", server.drain_timeout_ms, 1..=DAY_MS),
            ("server.connections_max", many(server.connections_max), 1..=MANY),
            ("server.requests_in_flight_max", many(server.requests_in_flight_max), 1..=MANY),
            ("server.settlements_in_flight_max", many(server.settlements_in_flight_max), 1..=MANY),
            ("server.quota_streams_max", many(server.quota_streams_max), 0..=MANY),
            ("server.quota_streams_per_user_max", many(server.quota_streams_per_user_max), 1..=MANY),
            ("server.body_bytes_max", many(server.body_bytes_max), 1_024..=1 << 30),
            ("redis.connect_timeout_ms", redis.connect_timeout_ms, 1..=DAY_MS),
            ("redis.response_timeout_ms", redis.response_timeout_ms, 1..=DAY_MS),
            ("redis.queue_timeout_ms", redis.queue_timeout_ms, 1..=DAY_MS),
            ("redis.queue_length_max", many(redis.queue_length_max), 1..=MANY),
            ("redis.batch_operations_max", many(redis.batch_operations_max), 1..=4_096),
            ("redis.calls_in_flight_max", many(redis.calls_in_flight_max), 1..=1_024),
            // The batch flushed last stays in the stream.
            ("redis.stream_bytes_max", redis.stream_bytes_max, 16 << 20..=1 << 40),
            ("postgres.connections_max", postgres.connections_max.into(), 2..=10_000),
            ("postgres.acquire_timeout_ms", postgres.acquire_timeout_ms, 1..=DAY_MS),
            ("postgres.statement_timeout_ms", postgres.statement_timeout_ms, 1..=DAY_MS),
            ("quota.partitions", quota.partitions.into(), 1..=100),
            ("quota.idempotency_ttl_seconds", quota.idempotency_ttl_seconds, 1..=31 * 24 * 60 * 60),
            ("quota.decision_timeout_ms", quota.decision_timeout_ms, 1..=DAY_MS),
            ("dual_write.timeout_ms", dual_write.timeout_ms, 1..=DAY_MS),
            ("dual_write.requests_in_flight_max", many(dual_write.requests_in_flight_max), 1..=MANY),
            ("upstream.connect_timeout_ms", upstream.connect_timeout_ms, 1..=DAY_MS),
            ("upstream.head_timeout_ms", upstream.head_timeout_ms, 1..=DAY_MS),
            ("upstream.idle_timeout_ms", upstream.idle_timeout_ms, 1..=DAY_MS),
            ("upstream.requests_in_flight_max", many(upstream.requests_in_flight_max), 1..=MANY),
            ("upstream.body_bytes_max", many(upstream.body_bytes_max), 1_024..=1 << 32),
            ("estimates.input_tokens", estimates.input_tokens.into(), 0..=MANY_TOKENS),
            ("estimates.output_tokens", estimates.output_tokens.into(), 0..=MANY_TOKENS),
            ("webhooks.timeout_ms", webhooks.timeout_ms, 1..=DAY_MS),
            ("webhooks.requests_in_flight_max", many(webhooks.requests_in_flight_max), 1..=MANY),
            ("flusher.interval_ms", flusher.interval_ms, 1..=60_000),
            ("flusher.batch_events_max", many(flusher.batch_events_max), 1..=1_000_000),
            ("resetter.overdue_after_hours", resetter.overdue_after_hours.into(), 1..=24 * 366),
            ("resetter.flush_lag_max_seconds", resetter.flush_lag_max_seconds.into(), 1..=24 * 60 * 60),
            ("auth.jwt_leeway_seconds", auth.jwt_leeway_seconds, 0..=24 * 60 * 60),
            ("rate_limits.per_address", rate_limits.per_address.into(), 0..=MANY),
            ("rate_limits.unauthenticated_per_address", rate_limits.unauthenticated_per_address.into(), 0..=MANY),
            ("rate_limits.per_token", rate_limits.per_token.into(), 0..=MANY),
        ]
    }

    fn fractions(&self) -> Vec<(&'static str, f64, RangeInclusive<f64>)> {
        vec![
            ("rollout.percentage", self.rollout.percentage, 0.0..=100.0),
            ("telemetry.trace_sample_ratio", self.telemetry.trace_sample_ratio, 0.0..=1.0),
        ]
    }
}

fn check<T: PartialOrd + Display>(setting: &str, value: &T, range: &RangeInclusive<T>) -> Result<(), ConfigError> {
    if range.contains(value) {
        return Ok(());
    }
    let problem = format!("must be {} to {}, not {value}", range.start(), range.end());
    Err(ConfigError::Invalid { setting: setting.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use figment::{
        Figment,
        providers::{Format, Toml},
        value::{Dict, Value},
    };

    use super::super::{DEFAULTS, tests::from_toml};

    #[test]
    fn every_number_of_the_defaults_has_a_range_that_is_checked() {
        let config = from_toml("").unwrap();
        config.check_ranges().unwrap();
        let integers = config.integers();
        let checked: Vec<&str> =
            integers.iter().map(|(name, ..)| *name).chain(config.fractions().iter().map(|(name, ..)| *name)).collect();
        let defaults: Dict = Figment::from(Toml::string(DEFAULTS)).extract().unwrap();
        for (section, values) in &defaults {
            // Quotas and costs have rules of their own.
            let Value::Dict(_, values) = values else { continue };
            if ["levels", "models", "level_models"].contains(&section.as_str()) {
                continue;
            }
            for (key, value) in values {
                let name = format!("{section}.{key}");
                let is_number = matches!(value, Value::Num(..));
                assert_eq!(checked.contains(&name.as_str()), is_number, "{name} is checked exactly if it is a number");
            }
        }
    }

    #[test]
    fn a_number_outside_its_range_is_refused_by_name() {
        for (text, error) in [
            ("[rollout]\npercentage = 150", "configuration: rollout.percentage must be 0 to 100, not 150"),
            ("[rollout]\npercentage = nan", "configuration: rollout.percentage must be 0 to 100, not NaN"),
            ("[redis]\nresponse_timeout_ms = 0", "redis.response_timeout_ms must be 1 to 86400000, not 0"),
            ("[postgres]\nconnections_max = 0", "postgres.connections_max must be 2 to 10000, not 0"),
            ("[telemetry]\ntrace_sample_ratio = -0.1", "telemetry.trace_sample_ratio must be 0 to 1, not -0.1"),
        ] {
            let refused = from_toml(text).unwrap().check_ranges().unwrap_err().to_string();
            assert!(refused.contains(error), "{refused}");
        }
    }
}
