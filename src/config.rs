//! Settings: `config/default.toml`, a file of the operator's, and the environment, each stronger than the one before.
//!
//! Only `app` and `cli` read this. Everything below them takes plain values.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono_tz::Tz;
use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

use crate::{
    domain::{
        InvalidInput,
        ap::Ap,
        client_gone::ClientGone,
        daily_at::DailyAt,
        decision::OnRedisFailure,
        level::LevelName,
        partition::Partitions,
        rollout::{Mode, Percentage, Rollout},
        scope::Scope,
        user_id::UserId,
    },
    telemetry::LogFormat,
};

/// Every setting with its default and a comment.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml says what each setting means")]
pub struct Config {
    pub server: Server,
    pub redis: Redis,
    pub postgres: Postgres,
    pub quota: Quota,
    pub levels: BTreeMap<String, u32>,
    pub models: BTreeMap<String, u32>,
    pub upstream: Upstream,
    pub dual_write: DualWrite,
    pub envoy: Envoy,
    pub flusher: Flusher,
    pub resetter: Resetter,
    pub auth: Auth,
    pub rate_limits: RateLimits,
    pub rollout: RolloutSection,
    pub telemetry: Telemetry,
    /// The operator's file, to be read again.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// A text that no log and no error shows.
/// `file:/path` stands for the contents of that file, without a line end.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret(String);

macro_rules! sections {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            /// One section of `config/default.toml`, which says what each setting means.
            #[derive(Debug, Clone, Deserialize)]
            #[serde(deny_unknown_fields)]
            #[expect(missing_docs, reason = "config/default.toml says what each setting means")]
            pub struct $name { $(pub $field: $type),* }
        )*
    };
}

sections! {
    Server {
        listen: SocketAddr,
        request_timeout_ms: u64,
        header_read_timeout_ms: u64,
        stop_delay_ms: u64,
        drain_timeout_ms: u64,
        connections_max: usize,
        requests_in_flight_max: usize,
        settlements_in_flight_max: usize,
        quota_streams_max: usize,
        body_bytes_max: usize,
    }
    Redis {
        url: Secret,
        connect_timeout_ms: u64,
        response_timeout_ms: u64,
        queue_timeout_ms: u64,
        queue_length_max: usize,
        batch_operations_max: usize,
        calls_in_flight_max: usize,
        stream_entries_max: u32,
    }
    Postgres {
        url: Secret,
        connections_max: u32,
        acquire_timeout_ms: u64,
        statement_timeout_ms: u64,
    }
    Quota {
        partitions: u16,
        time_zone: String,
        on_redis_failure: OnRedisFailure,
        idempotency_ttl_seconds: u64,
        decision_timeout_ms: u64,
    }
    Flusher {
        enabled: bool,
        interval_ms: u64,
        batch_events_max: usize,
    }
    Resetter {
        enabled: bool,
        daily_at_utc: String,
        overdue_after_hours: u32,
        flush_lag_max_seconds: u32,
    }
    Auth {
        jwt_secret: Secret,
        jwks: String,
        jwt_issuer: String,
        jwt_audience: String,
        jwt_leeway_seconds: u64,
        tokens: BTreeMap<String, Token>,
        reservation_secret: Secret,
    }
    Token {
        sha256: Vec<String>,
        scopes: Vec<Scope>,
    }
    RateLimits {
        per_address: u32,
        unauthenticated_per_address: u32,
        per_token: u32,
    }
    DualWrite {
        url: String,
        token: Secret,
        timeout_ms: u64,
        at_once: usize,
    }
    Envoy {
        listen: Option<SocketAddr>,
    }
    RolloutSection {
        mode: Mode,
        percentage: f64,
        always_in: Vec<String>,
        always_out: Vec<String>,
    }
    Upstream {
        url: String,
        key: Secret,
        connect_timeout_ms: u64,
        head_timeout_ms: u64,
        idle_timeout_ms: u64,
        client_gone: ClientGone,
        requests_in_flight_max: usize,
        body_bytes_max: usize,
    }
    Telemetry {
        log_format: LogFormat,
        log_filter: String,
    }
}

/// Why the settings cannot be meant. The message names the setting and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting is unknown, missing or of the wrong kind.
    #[error("configuration: {0}")]
    Unreadable(#[from] Box<figment::Error>),
    /// A setting cannot be meant.
    #[error("configuration: {setting} {problem}")]
    Invalid {
        /// The setting, as `section.key`.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// If a setting is unknown, of the wrong kind, or the file cannot be read.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = |figment: Figment| {
            figment
                .merge(Env::raw().only(&["DATABASE_URL"]).map(|_| "postgres.url".into()))
                .merge(Env::raw().only(&["REDIS_URL"]).map(|_| "redis.url".into()))
                .merge(Env::prefixed("QUOTA_GATE__").split("__"))
        };
        let unreadable = |error| ConfigError::Unreadable(Box::new(error));
        let chosen = file.map_or_else(Figment::new, |file| Figment::from(Toml::file_exact(file)));
        let all = environment(Figment::from(Toml::string(DEFAULTS)).merge(chosen.clone()));
        let mut config: Self = all.extract().map_err(unreadable)?;
        if chosen.contains("levels") {
            // Whoever lists levels lists them all: the built-in ones do not come along.
            config.levels = environment(chosen).extract_inner("levels").map_err(unreadable)?;
        }
        config.file = file.map(Path::to_owned);
        Ok(config)
    }

    /// For whom the gate decides.
    ///
    /// # Errors
    /// If the percentage or a user id is none.
    pub fn rollout(&self) -> Result<Rollout, ConfigError> {
        let RolloutSection { mode, percentage, always_in, always_out } = &self.rollout;
        let users = |ids: &[String]| ids.iter().map(|id| UserId::parse(id)).collect::<Result<_, _>>();
        Ok(Rollout {
            mode: *mode,
            percentage: Percentage::try_from(*percentage).map_err(invalid("rollout.percentage"))?,
            always_in: users(always_in).map_err(invalid("rollout.always_in"))?,
            always_out: users(always_out).map_err(invalid("rollout.always_out"))?,
        })
    }

    /// The number of partitions.
    ///
    /// # Errors
    /// Unless it is 1 to 100.
    pub fn partitions(&self) -> Result<Partitions, ConfigError> {
        Partitions::new(self.quota.partitions).map_err(invalid("quota.partitions"))
    }

    /// The time zone.
    ///
    /// # Errors
    /// Unless it is a name of the IANA time zone database.
    pub fn time_zone(&self) -> Result<Tz, ConfigError> {
        self.quota.time_zone.parse().map_err(|_| ConfigError::Invalid {
            setting: "quota.time_zone",
            problem: format!("{:?} is no time zone: use a name such as UTC or Europe/Berlin", self.quota.time_zone),
        })
    }

    /// Names and quotas of the levels.
    ///
    /// # Errors
    /// If there is none, or a name is invalid.
    pub fn levels(&self) -> Result<Vec<(LevelName, Ap)>, ConfigError> {
        if self.levels.is_empty() {
            return Err(ConfigError::Invalid { setting: "levels", problem: "needs at least one level".into() });
        }
        let mut levels: Vec<(LevelName, Ap)> = self
            .levels
            .iter()
            .map(|(name, quota)| Ok((LevelName::parse(name)?, Ap::new(*quota))))
            .collect::<Result<_, InvalidInput>>()
            .map_err(invalid("levels"))?;
        // Codes are given out in this order, so the lowest level gets the lowest.
        levels.sort_by_key(|(_, quota)| *quota);
        Ok(levels)
    }

    /// When the schedule runs the resetter.
    ///
    /// # Errors
    /// Unless it is a time as `HH:MM`.
    pub fn daily_at(&self) -> Result<DailyAt, ConfigError> {
        self.resetter.daily_at_utc.parse().map_err(invalid("resetter.daily_at_utc"))
    }
}

fn invalid(setting: &'static str) -> impl Fn(InvalidInput) -> ConfigError {
    move |error| ConfigError::Invalid { setting, problem: error.rule }
}

impl TryFrom<String> for Secret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("file:") else { return Ok(Self(text)) };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => Err(format!("the file {path} of a secret cannot be read: {error}")),
        }
    }
}

impl Secret {
    /// A secret from elsewhere than the configuration.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; only for what has to use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text, if there is one.
    ///
    /// # Errors
    /// A message that says which setting is missing and how to make it.
    pub fn required(&self, setting: &'static str, how: &str) -> Result<&str, ConfigError> {
        if self.0.is_empty() {
            return Err(ConfigError::Invalid { setting, problem: format!("is not set: {how}") });
        }
        Ok(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A setting in milliseconds.
#[must_use]
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_toml(text: &str) -> Result<Config, Box<figment::Error>> {
        Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(text)).extract().map_err(Box::new)
    }

    #[test]
    fn the_defaults_are_complete_and_valid() {
        let config = from_toml("").unwrap();
        assert_eq!(config.partitions().unwrap().count(), 4);
        assert_eq!(config.time_zone().unwrap(), Tz::UTC);
        let levels: Vec<(String, u32)> =
            config.levels().unwrap().into_iter().map(|(name, ap)| (name.to_string(), ap.get())).collect();
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
    fn a_file_that_lists_levels_lists_them_all() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("levels.toml");
        std::fs::write(&file, "[levels]\nbronze = 5\ngold = 50\n").unwrap();
        let levels = Config::load(Some(&file)).unwrap().levels;
        assert_eq!(levels, BTreeMap::from([("bronze".to_owned(), 5), ("gold".to_owned(), 50)]));
        std::fs::write(&file, "[server]\nconnections_max = 7\n").unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!((config.server.connections_max, config.levels.len()), (7, 4));
        assert!(Config::load(Some(&dir.path().join("missing.toml"))).is_err());
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let error = from_toml("[server]\nlissten = \"0.0.0.0:1\"").unwrap_err().to_string();
        assert!(error.contains("lissten"), "{error}");
    }

    #[test]
    fn a_secret_never_shows() {
        let config = from_toml("[auth]\njwt_secret = \"swordfish\"").unwrap();
        assert!(!format!("{config:?}").contains("swordfish"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "swordfish\n").unwrap();
        let config = from_toml(&format!("[auth]\njwt_secret = \"file:{}\"", file.display())).unwrap();
        assert_eq!(config.auth.jwt_secret.expose(), "swordfish");
        assert!(from_toml("[auth]\njwt_secret = \"file:/nowhere\"").unwrap_err().to_string().contains("/nowhere"));
        let error = Secret::default().required("auth.jwt_secret", "make one").unwrap_err().to_string();
        assert_eq!(error, "configuration: auth.jwt_secret is not set: make one");
    }
}
