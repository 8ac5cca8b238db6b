//! Verifies users' JWTs (RFC 8725).
//!
//! Each key has exactly one algorithm, set by the configuration or the key, never by the token. A shared secret uses
//! HS256. A JWKS document contains public keys, found by `kid`. It is fetched again when a token names an unknown key,
//! at most once a minute.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use axum::http::Uri;
use http_body_util::{BodyExt, Limited};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::outbound::{Client, client};
use quota_gate::domain::{InvalidInput, user_id::UserId};

/// Shorter secrets could be guessed.
const SECRET_BYTES_MIN: usize = 32;
/// Enough for a few dozen keys.
const JWKS_BYTES_MAX: usize = 64 * 1024;
const FETCH_MAX: Duration = Duration::from_secs(5);
/// Minimum time between fetches, because a token may name any `kid`.
const REFETCH_PAUSE: Duration = Duration::from_mins(1);
/// Time that a withdrawn key stays valid.
const REFRESH_EVERY: Duration = Duration::from_mins(10);
/// Algorithms for RSA keys.
const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
/// RSA keys below 2048 bits can be broken.
const RSA_MODULUS_BYTES_MIN: usize = 256;

/// Signer and claims of users' JWTs.
#[derive(Debug, Clone, Copy)]
pub struct JwtOptions<'a> {
    /// Secret that signs JWTs with HS256; empty if `jwks` is set.
    pub secret: &'a str,
    /// Path or `https:` URL of a JWKS document; empty if `secret` is set.
    pub jwks: &'a str,
    /// Required claim `iss`.
    pub issuer: &'a str,
    /// Required claim `aud`.
    pub audience: &'a str,
    /// Tolerated error of the issuer's clock.
    pub leeway_seconds: u64,
}

/// Verifies users' JWTs.
pub(crate) struct Jwts {
    keys: Keys,
    issuer: String,
    audience: String,
    leeway_seconds: u64,
}

enum Keys {
    Secret(Box<DecodingKey>),
    Jwks(Arc<Jwks>),
}

struct Jwks {
    source: Source,
    keys: RwLock<HashMap<String, Key>>,
    fetched: Arc<Mutex<Instant>>,
}

enum Source {
    File(PathBuf),
    Url(Box<Client>, Uri),
}

#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Claims that the gate uses; the library checks the others.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Jwts {
    pub(crate) async fn new(options: &JwtOptions<'_>) -> Result<Self, InvalidInput> {
        for (field, value) in [("auth.jwt_issuer", options.issuer), ("auth.jwt_audience", options.audience)] {
            if value.is_empty() {
                return Err(InvalidInput { field, rule: "must be set: users' JWTs must contain it".into() });
            }
        }
        let keys = match (options.secret, options.jwks) {
            ("", "") => {
                let rule = "or auth.jwks must be set: `openssl rand -hex 32` makes a secret".into();
                return Err(InvalidInput { field: "auth.jwt_secret", rule });
            }
            (secret, "") if secret.len() < SECRET_BYTES_MIN => {
                return Err(InvalidInput { field: "auth.jwt_secret", rule: "must have at least 32 bytes".into() });
            }
            (secret, "") => Keys::Secret(Box::new(DecodingKey::from_secret(secret.as_bytes()))),
            ("", jwks) => Keys::Jwks(Arc::new(Jwks::load(jwks).await?)),
            (_, _) => {
                let rule = "cannot be set together with auth.jwt_secret: each JWT has one signer".into();
                return Err(InvalidInput { field: "auth.jwks", rule });
            }
        };
        Ok(Self {
            keys,
            issuer: options.issuer.to_owned(),
            audience: options.audience.to_owned(),
            leeway_seconds: options.leeway_seconds,
        })
    }

    /// Returns the user that the JWT names, or `None` if the JWT is invalid.
    pub(crate) async fn user(&self, jwt: &str) -> Option<UserId> {
        let header = decode_header(jwt).ok()?;
        match &self.keys {
            Keys::Secret(key) => self.decode(jwt, key, Algorithm::HS256),
            Keys::Jwks(jwks) => {
                let Key { key, algorithm } = jwks.key(&header.kid?).await?;
                self.decode(jwt, &key, algorithm)
            }
        }
    }

    fn decode(&self, jwt: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<UserId> {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.leeway = self.leeway_seconds;
        validation.validate_nbf = true;
        let claims = decode::<Claims>(jwt, key, &validation).ok()?.claims;
        UserId::parse(&claims.sub).ok()
    }
}

impl Jwks {
    async fn load(source: &str) -> Result<Self, InvalidInput> {
        let invalid = |rule: String| InvalidInput { field: "auth.jwks", rule };
        let source = Source::parse(source).map_err(invalid)?;
        let keys = source.fetch().await.map_err(invalid)?;
        Ok(Self { source, keys: RwLock::new(keys), fetched: Arc::new(Mutex::new(Instant::now())) })
    }

    async fn key(self: &Arc<Self>, kid: &str) -> Option<Key> {
        let key = self.keys.read().expect("no panic under this lock").get(kid).cloned();
        if key.is_none() {
            self.fetch_again(REFETCH_PAUSE).await;
            return self.keys.read().expect("no panic under this lock").get(kid).cloned();
        }
        if let Ok(fetched) = self.fetched.try_lock()
            && fetched.elapsed() > REFRESH_EVERY
        {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.fetch_again(REFRESH_EVERY).await });
        }
        key
    }

    /// Fetches the document, unless it was fetched within `pause`. Only one fetch runs at a time; if it fails,
    /// the keys stay unchanged.
    async fn fetch_again(self: &Arc<Self>, pause: Duration) {
        let mut fetched = Arc::clone(&self.fetched).lock_owned().await;
        if fetched.elapsed() < pause {
            return;
        }
        let this = Arc::clone(self);
        // In a task: if the client disconnects during the fetch, the old keys must not stay in use for another pause.
        let fetching = tokio::spawn(async move {
            *fetched = Instant::now();
            match this.source.fetch().await {
                Ok(keys) => *this.keys.write().expect("no panic under this lock") = keys,
                Err(error) => tracing::error!(error, "cannot read the JWKS document; the keys stay unchanged"),
            }
        });
        let _ = fetching.await;
    }
}

impl Source {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url: Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
        let is_local = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme_str() != Some("https") && !is_local {
            return Err("must be an https: URL: replaced keys would let an attacker sign in as any user".to_owned());
        }
        let client = client(FETCH_MAX).map_err(|error| format!("cannot be fetched: {error}"))?;
        Ok(Self::Url(Box::new(client), url))
    }

    async fn fetch(&self) -> Result<HashMap<String, Key>, String> {
        let text = match self {
            Self::File(path) => tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))?,
            Self::Url(client, url) => {
                let fetch = async {
                    let response = client.get(url.clone()).await.map_err(|error| format!("{url}: {error}"))?;
                    if !response.status().is_success() {
                        return Err(format!("{url} answers {}", response.status()));
                    }
                    let body = Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await;
                    Ok(body.map_err(|error| format!("{url}: {error}"))?.to_bytes().to_vec())
                };
                timeout(FETCH_MAX, fetch).await.map_err(|_| format!("{url} does not answer"))??
            }
        };
        if text.len() > JWKS_BYTES_MAX {
            return Err(format!("has more than {JWKS_BYTES_MAX} bytes"));
        }
        keys_of(&text)
    }
}

/// Returns the public signing keys of a document, by `kid`.
fn keys_of(text: &[u8]) -> Result<HashMap<String, Key>, String> {
    let document: JwkSet = serde_json::from_slice(text).map_err(|error| format!("is not a JWKS document: {error}"))?;
    let mut keys = HashMap::new();
    for jwk in &document.keys {
        if jwk.common.public_key_use.as_ref().is_some_and(|used_for| *used_for != PublicKeyUse::Signature) {
            continue;
        }
        let kid = jwk.common.key_id.clone().ok_or("has a key without kid")?;
        let algorithm = algorithm_of(jwk).map_err(|problem| format!("key {kid} {problem}"))?;
        let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("key {kid}: {error}"))?;
        if keys.insert(kid.clone(), Key { algorithm, key }).is_some() {
            return Err(format!("has two keys {kid}"));
        }
    }
    if keys.is_empty() { Err("has no key for signatures".to_owned()) } else { Ok(keys) }
}

/// Returns the one algorithm of a key.
fn algorithm_of(jwk: &Jwk) -> Result<Algorithm, &'static str> {
    let (fitting, default): (&[Algorithm], Algorithm) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            // Base64 of n: four characters for three bytes.
            if rsa.n.len() * 3 / 4 < RSA_MODULUS_BYTES_MIN {
                return Err("is an RSA key of less than 2048 bits");
            }
            (&RSA, Algorithm::RS256)
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => (&[Algorithm::ES256], Algorithm::ES256),
            EllipticCurve::P384 => (&[Algorithm::ES384], Algorithm::ES384),
            _ => return Err("has a curve that is not supported"),
        },
        AlgorithmParameters::OctetKeyPair(_) => (&[Algorithm::EdDSA], Algorithm::EdDSA),
        // A shared secret in a public document is not secret, and a public key must never verify HS256.
        _ => return Err("is not a public key"),
    };
    let algorithm = match jwk.common.key_algorithm {
        None => return Ok(default),
        Some(KeyAlgorithm::RS256) => Algorithm::RS256,
        Some(KeyAlgorithm::RS384) => Algorithm::RS384,
        Some(KeyAlgorithm::RS512) => Algorithm::RS512,
        Some(KeyAlgorithm::PS256) => Algorithm::PS256,
        Some(KeyAlgorithm::PS384) => Algorithm::PS384,
        Some(KeyAlgorithm::PS512) => Algorithm::PS512,
        Some(KeyAlgorithm::ES256) => Algorithm::ES256,
        Some(KeyAlgorithm::ES384) => Algorithm::ES384,
        Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
        Some(_) => return Err("has an algorithm that is not for signatures"),
    };
    if fitting.contains(&algorithm) { Ok(algorithm) } else { Err("has an algorithm that does not fit its type") }
}
