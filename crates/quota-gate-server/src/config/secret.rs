//! Secrets: texts that logs and errors never show.

use std::fmt;

use serde::Deserialize;

use crate::config::ConfigError;

/// A text that logs and errors never show.
/// `file:/path` stands for the contents of that file, without line ends at its end.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret(String);

impl TryFrom<String> for Secret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("file:") else { return Ok(Self(text)) };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => Err(format!("the secret file {path} cannot be read: {error}")),
        }
    }
}

impl Secret {
    /// Creates a secret that is not from the configuration.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text. Only for code that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the host, port and path of a URL, without credentials and parameters.
    #[must_use]
    pub fn location(&self) -> &str {
        let address = self.0.rsplit_once('@').or_else(|| self.0.split_once("://")).map_or("", |(_, address)| address);
        address.split_once('?').map_or(address, |(address, _)| address)
    }

    /// Returns the text, if it is set.
    ///
    /// # Errors
    /// A message that names the missing setting and says how to set it.
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

#[cfg(test)]
mod tests {
    use super::{super::tests::from_toml, *};

    #[test]
    fn a_secret_is_hidden_and_may_be_in_a_file() {
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

    #[test]
    fn the_location_of_a_url_has_no_credentials() {
        for (url, location) in [
            ("redis://:sw@rd:fish@host:6379/1", "host:6379/1"),
            ("postgres://me:swordfish@[::1]:5432/quota?sslmode=require&password=swordfish", "[::1]:5432/quota"),
            ("redis://host", "host"),
            ("swordfish", ""),
        ] {
            assert_eq!(Secret::new(url).location(), location);
        }
    }
}
