//! Settings from `config/default.toml`, the operator's file and the environment; each overrides the ones before it.
//!
//! Only `app` and `cli` read them. All other code takes plain values.

mod environment;
mod levels;
mod meters;
mod options;
mod prices;
mod ranges;
mod secret;
mod sections;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono_tz::Tz;
use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

pub use self::{levels::LevelSection, meters::MeterSection, prices::Price, secret::Secret, sections::*};
use crate::telemetry::Traces;
use quota_gate::domain::{
    InvalidInput,
    daily_at::DailyAt,
    level::{LevelName, LevelTerms},
    partition::Partitions,
    rollout::{Percentage, Rollout},
    user_id::UserId,
};

/// All settings, with their defaults and a comment each.
pub const DEFAULTS: &str = include_str!("../../../../config/default.toml");

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml describes each setting")]
pub struct Config {
    pub server: Server,
    pub redis: Redis,
    pub postgres: Postgres,
    pub quota: Quota,
    pub levels: BTreeMap<String, LevelSection>,
    pub meters: BTreeMap<String, MeterSection>,
    pub models: Models,
    pub level_models: BTreeMap<String, Vec<String>>,
    pub estimates: Estimates,
    pub upstream: Upstream,
    pub dual_write: DualWrite,
    pub billing: Billing,
    pub transfers: Transfers,
    pub webhooks: Webhooks,
    pub envoy: Envoy,
    pub flusher: Flusher,
    pub resetter: Resetter,
    pub auth: Auth,
    pub rate_limits: RateLimits,
    pub rollout: RolloutSection,
    pub telemetry: Telemetry,
    /// The operator's file, which is read again while the gate runs.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Environment variables that look like settings and have no effect.
    #[serde(skip)]
    ignored_variables: Vec<String>,
    #[serde(skip)]
    given: Given,
}

/// Each setting as it was given, for a comparison. Contains secrets.
#[derive(Clone, Default)]
struct Given(BTreeMap<String, serde_json::Value>);

/// Why the settings are invalid. The message names the setting and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting is unknown, missing or of the wrong type.
    #[error("configuration: {0}")]
    Unreadable(#[from] Box<figment::Error>),
    /// An environment variable has the name of a setting, except for its underscores.
    #[error("environment variable {given} has no effect: write {meant}, with two underscores between its parts")]
    Environment {
        /// Name of the variable.
        given: String,
        /// Name that the setting has.
        meant: String,
    },
    /// A setting has an invalid value.
    #[error("configuration: {setting} {problem}")]
    Invalid {
        /// The setting, as `section.key`.
        setting: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// If a setting is unknown or of the wrong type, or the file cannot be read.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let chosen = chosen(file);
        let defaults = flat(&Figment::from(Toml::string(DEFAULTS)))?;
        // `envoy.listen` has no default.
        let settings = defaults.keys().map(String::as_str).chain(["envoy.listen"]);
        let ignored_variables = environment::check(std::env::vars(), settings)?;
        let mut config: Self = everything(&chosen).extract().map_err(unreadable)?;
        config.ignored_variables = ignored_variables;
        config.given = Given(flat(&everything(&chosen))?);
        if chosen.contains("levels") {
            // A file with levels must list them all: the default levels are not added.
            config.levels = environment(chosen).extract_inner("levels").map_err(unreadable)?;
        }
        config.file = file.map(Path::to_owned);
        config.check_ranges()?;
        Ok(config)
    }

    /// Checks that every secret that is in a file can be read.
    ///
    /// # Errors
    /// If one cannot.
    pub fn check_secret_files(&self) -> Result<(), ConfigError> {
        for (setting, value) in &self.given.0 {
            // Settings that are no secrets do not begin like this.
            if let Some(text) = value.as_str()
                && let Err(problem) = secret::read(text)
            {
                return Err(ConfigError::Invalid { setting: setting.clone(), problem });
            }
        }
        Ok(())
    }

    /// Returns what is allowed, but probably not meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let empty = self.levels.iter().filter(|(_, level)| level.ap() == 0);
        let empty = empty.map(|(level, _)| format!("levels.{level} is 0: users of this level cannot send any message"));
        let replaced = self
            .redis
            .stream_entries_max
            .map(|_| "redis.stream_entries_max has no effect any more: set redis.stream_bytes_max".to_owned());
        self.ignored_variables.iter().cloned().chain(empty).chain(replaced).collect()
    }

    /// Returns the names of the settings that differ in `other`.
    #[must_use]
    pub fn differing_settings(&self, other: &Self) -> Vec<String> {
        let (Given(old), Given(new)) = (&self.given, &other.given);
        let changed =
            new.iter().filter(|(setting, value)| old.get(*setting) != Some(value)).map(|(setting, _)| setting);
        let removed = old.keys().filter(|setting| !new.contains_key(*setting));
        changed.chain(removed).cloned().collect()
    }

    /// Reads the section `[rollout]` again. Reads no other one, so files of secrets need not exist any more.
    ///
    /// # Errors
    /// If the file cannot be read, or the mode, the percentage or a user id is invalid.
    pub fn rollout_of(file: Option<&Path>) -> Result<Rollout, ConfigError> {
        let section: RolloutSection = everything(&chosen(file)).extract_inner("rollout").map_err(unreadable)?;
        let users = |ids: &[String]| ids.iter().map(|id| UserId::parse(id)).collect::<Result<_, _>>();
        Ok(Rollout {
            mode: section.mode,
            percentage: Percentage::try_from(section.percentage).map_err(invalid("rollout.percentage"))?,
            always_in: users(&section.always_in).map_err(invalid("rollout.always_in"))?,
            always_out: users(&section.always_out).map_err(invalid("rollout.always_out"))?,
        })
    }

    /// Returns the number of partitions.
    ///
    /// # Errors
    /// Unless it is 1 to 100.
    pub fn partitions(&self) -> Result<Partitions, ConfigError> {
        Partitions::new(self.quota.partitions).map_err(invalid("quota.partitions"))
    }

    /// Returns the time zone.
    ///
    /// # Errors
    /// Unless it is a name of the IANA time zone database.
    pub fn time_zone(&self) -> Result<Tz, ConfigError> {
        self.quota.time_zone.parse().map_err(|_| ConfigError::Invalid {
            setting: "quota.time_zone".to_owned(),
            problem: format!(
                "{:?} is not a time zone: use an IANA name such as UTC or Europe/Berlin",
                self.quota.time_zone
            ),
        })
    }

    /// Returns the names, quotas and limits of the levels.
    ///
    /// # Errors
    /// If there are no levels, or a name or limit is invalid.
    pub fn levels(&self) -> Result<Vec<(LevelName, LevelTerms)>, ConfigError> {
        if self.levels.is_empty() {
            return Err(ConfigError::Invalid {
                setting: "levels".to_owned(),
                problem: "needs at least one level".into(),
            });
        }
        let mut levels: Vec<(LevelName, LevelTerms)> = self
            .levels
            .iter()
            .map(|(name, level)| Ok((LevelName::parse(name)?, level.terms()?)))
            .collect::<Result<_, InvalidInput>>()
            .map_err(invalid("levels"))?;
        // Codes are assigned in this order, so the lowest level gets the lowest code.
        levels.sort_by_key(|(_, terms)| terms.quota);
        Ok(levels)
    }

    /// Returns the exporter of traces, if an endpoint is configured.
    ///
    /// # Errors
    /// If the endpoint is not a URL, or the ratio is not 0 to 1.
    pub fn traces(&self) -> Result<Option<Traces>, ConfigError> {
        let Telemetry { otlp_endpoint, trace_sample_ratio, .. } = &self.telemetry;
        if otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let wrong = |setting: &str, problem| ConfigError::Invalid { setting: setting.to_owned(), problem };
        if !(0.0..=1.0).contains(trace_sample_ratio) {
            return Err(wrong("telemetry.trace_sample_ratio", "must be 0 to 1".into()));
        }
        let traces = Traces::new(otlp_endpoint, *trace_sample_ratio);
        traces.map(Some).map_err(|error| wrong("telemetry.otlp_endpoint", error.to_string()))
    }

    /// Returns the daily time at which the resetter runs.
    ///
    /// # Errors
    /// Unless it is a time `HH:MM`.
    pub fn daily_at(&self) -> Result<DailyAt, ConfigError> {
        self.resetter.daily_at_utc.parse().map_err(invalid("resetter.daily_at_utc"))
    }
}

/// Returns each setting under its name, such as `server.listen`.
fn flat(figment: &Figment) -> Result<BTreeMap<String, serde_json::Value>, ConfigError> {
    fn add(to: &mut BTreeMap<String, serde_json::Value>, name: &str, value: serde_json::Value) {
        match value {
            serde_json::Value::Object(members) => {
                for (key, value) in members {
                    add(to, &if name.is_empty() { key } else { format!("{name}.{key}") }, value);
                }
            }
            value => {
                to.insert(name.to_owned(), value);
            }
        }
    }
    let mut settings = BTreeMap::new();
    add(&mut settings, "", figment.extract().map_err(unreadable)?);
    Ok(settings)
}

/// Returns the settings of the operator's file.
fn chosen(file: Option<&Path>) -> Figment {
    file.map_or_else(Figment::new, |file| Figment::from(Toml::file_exact(file)))
}

/// Adds the environment, which overrides `figment`.
fn environment(figment: Figment) -> Figment {
    figment
        .merge(Env::raw().only(&["DATABASE_URL"]).map(|_| "postgres.url".into()))
        .merge(Env::raw().only(&["REDIS_URL"]).map(|_| "redis.url".into()))
        .merge(Env::prefixed("QUOTA_GATE__").split("__"))
}

/// Combines the defaults, the operator's file and the environment.
fn everything(chosen: &Figment) -> Figment {
    environment(Figment::from(Toml::string(DEFAULTS)).merge(chosen.clone()))
}

fn unreadable(error: figment::Error) -> ConfigError {
    ConfigError::Unreadable(Box::new(error))
}

fn invalid(setting: &'static str) -> impl Fn(InvalidInput) -> ConfigError {
    move |error| ConfigError::Invalid { setting: setting.to_owned(), problem: error.rule }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Converts a setting in milliseconds.
#[must_use]
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn from_toml(text: &str) -> Result<Config, Box<figment::Error>> {
        Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(text)).extract().map_err(Box::new)
    }

    #[test]
    fn the_defaults_are_complete_and_valid() {
        let config = from_toml("").unwrap();
        assert_eq!(config.partitions().unwrap().count(), 4);
        assert_eq!(config.time_zone().unwrap(), Tz::UTC);
        let levels: Vec<(String, u32)> =
            config.levels().unwrap().into_iter().map(|(name, terms)| (name.to_string(), terms.quota.get())).collect();
        let expected = [("free", 100), ("basic", 300), ("plus", 1000), ("pro", 3000)];
        assert_eq!(levels, expected.map(|(name, ap)| (name.to_owned(), ap)));
        assert_eq!(config.daily_at().unwrap().to_string(), "02:00");
    }

    #[test]
    fn every_setting_has_a_comment() {
        let lines: Vec<&str> = DEFAULTS.lines().collect();
        let levels = ["free", "basic", "plus", "pro"];
        for (number, line) in lines.iter().enumerate() {
            if let Some((key, _)) =
                line.split_once(" = ").filter(|(key, _)| !levels.contains(key) && !key.starts_with('#'))
            {
                assert!(lines[number - 1].starts_with('#'), "{key} has no comment");
            }
        }
    }

    #[test]
    fn levels_of_a_file_replace_the_default_levels() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("levels.toml");
        std::fs::write(&file, "[levels]\nbronze = 5\ngold = 50\n").unwrap();
        let levels = Config::load(Some(&file)).unwrap().levels().unwrap();
        let names: Vec<String> = levels.iter().map(|(name, terms)| format!("{name} {terms}")).collect();
        assert_eq!(names, ["bronze 5 AP", "gold 50 AP"]);
        std::fs::write(&file, "[server]\nconnections_max = 7\n").unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!((config.server.connections_max, config.levels.len()), (7, 4));
        assert!(Config::load(Some(&dir.path().join("missing.toml"))).is_err());
    }

    #[test]
    fn the_error_names_an_unknown_setting() {
        let error = from_toml("[server]\nlissten = \"0.0.0.0:1\"").unwrap_err().to_string();
        assert!(error.contains("lissten"), "{error}");
    }
}
