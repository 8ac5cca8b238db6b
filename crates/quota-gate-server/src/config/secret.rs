//! Secrets: texts that logs and errors never show.

use std::fmt;

use serde::Deserialize;

use crate::config::ConfigError;

/// Begins a setting whose value is in a file.
pub(super) const FILE: &str = "file:";

/// A text that logs and errors never show.
/// `file:/path` stands for the contents of that file, without line ends at its end.
///
/// A file that cannot be read is an error only for what needs the secret: a command may run where not all files are.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "String")]
pub struct Secret {
    text: String,
    unreadable: Option<String>,
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        match read(&text) {
            Ok(text) => Self { text, unreadable: None },
            Err(problem) => Self { text: String::new(), unreadable: Some(problem) },
        }
    }
}

/// Returns the text of a secret, which may be in a file.
pub(super) fn read(text: &str) -> Result<String, String> {
    let Some(path) = text.strip_prefix(FILE) else { return Ok(text.to_owned()) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(format!("is in a file that cannot be read: {path}: {error}")),
    }
}

impl Secret {
    /// Creates a secret that is not from the configuration.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), unreadable: None }
    }

    /// Returns the text. Only for code that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns whether no secret is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty() && self.unreadable.is_none()
    }

    /// Returns the host, port and path of a URL, without credentials and parameters.
    #[must_use]
    pub fn location(&self) -> &str {
        let address =
            self.text.rsplit_once('@').or_else(|| self.text.split_once("://")).map_or("", |(_, address)| address);
        address.split_once('?').map_or(address, |(address, _)| address)
    }

    /// Returns the text, if it is set.
    ///
    /// # Errors
    /// A message that names the missing setting and says how to set it.
    pub fn required(&self, setting: &'static str, how: &str) -> Result<&str, ConfigError> {
        if let Some(problem) = &self.unreadable {
            return Err(ConfigError::Invalid { setting: setting.to_owned(), problem: problem.clone() });
        }
        if self.text.is_empty() {
            return Err(ConfigError::Invalid { setting: setting.to_owned(), problem: format!("is not set: {how}") });
        }
        Ok(&self.text)
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
        let unreadable = from_toml("[auth]\njwt_secret = \"file:/nowhere\"").unwrap().auth.jwt_secret;
        assert!(unreadable.required("auth.jwt_secret", "make one").unwrap_err().to_string().contains("/nowhere"));
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
