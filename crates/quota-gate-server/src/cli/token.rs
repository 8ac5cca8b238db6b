//! `quota-gate token USER`: prints a JWT for a user, to try the gate.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use crate::cli::dev::DevFile;
use crate::cli::output::say;
use crate::config::Config;
use quota_gate::domain::{clock::Clock, user_id::UserId};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Id of the user.
    user: String,
    /// Lifetime in seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    ttl: u32,
}

/// Uses the secret of the `dev` in `data_dir`. Without it: the configured secret, or else that of a `dev` in
/// .quota-gate.
pub(super) fn run(arguments: &Arguments, data_dir: Option<&Path>, config: &Config) -> anyhow::Result<ExitCode> {
    let user = UserId::parse(&arguments.user)?;
    let (secret, issuer) = match data_dir {
        Some(dir) => (DevFile::read(dir)?.jwt_secret, super::dev::JWT_ISSUER.to_owned()),
        None if config.auth.jwt_secret.expose().is_empty() => {
            let dir = PathBuf::from(super::dev::DATA_DIR);
            let file = DevFile::read(&dir).context(
                "auth.jwt_secret is not set, and no `quota-gate dev` runs here: set the secret, or use --data-dir",
            )?;
            (file.jwt_secret, super::dev::JWT_ISSUER.to_owned())
        }
        None => (config.auth.jwt_secret.expose().to_owned(), config.auth.jwt_issuer.clone()),
    };
    say!("{}", jwt(&user, &secret, &issuer, &config.auth.jwt_audience, arguments.ttl)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn jwt(
    user: &UserId,
    secret: &str,
    issuer: &str,
    audience: &str,
    ttl_seconds: u32,
) -> anyhow::Result<String> {
    let expires = Clock::machine().now().timestamp() + i64::from(ttl_seconds);
    let claims = json!({ "sub": user.as_str(), "iss": issuer, "aud": audience, "exp": expires });
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))?)
}
