//! Who is asking: a user with a JWT, or a service, an administrator or the reset job with a token.
//!
//! A user's JWT is HS256 and nothing else, whatever its header says. Of a token the configuration has only the SHA-256, and
//! tokens are compared in constant time. A header such as `X-User-Id` says nothing unless a service sends it.

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::{Code, Problem};
use crate::domain::{InvalidInput, user_id::UserId};

/// Longest credential that is looked at.
const CREDENTIAL_BYTES_MAX: usize = 4096;
/// Shorter secrets could be guessed.
const SECRET_BYTES_MIN: usize = 32;
/// In whose name a service asks.
const X_USER_ID: &str = "x-user-id";

/// Who may do what.
pub struct Auth {
    key: DecodingKey,
    validation: Validation,
    services: Vec<[u8; 32]>,
    admins: Vec<[u8; 32]>,
    crons: Vec<[u8; 32]>,
}

/// What [`Auth`] is made of.
pub struct AuthOptions<'a> {
    /// Signs users' JWTs.
    pub jwt_secret: &'a str,
    /// Claim `iss`.
    pub jwt_issuer: &'a str,
    /// Claim `aud`.
    pub jwt_audience: &'a str,
    /// How far the issuer's clock may be off.
    pub jwt_leeway_seconds: u64,
    /// SHA-256 of services' tokens, in hexadecimal.
    pub service_tokens_sha256: &'a [String],
    /// SHA-256 of administrators' tokens.
    pub admin_tokens_sha256: &'a [String],
    /// SHA-256 of the reset job's tokens.
    pub cron_tokens_sha256: &'a [String],
}

/// The claims that count; the others are checked by the library.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

/// A chat service.
pub(super) struct Service;
/// An administrator.
pub(super) struct Admin;
/// The reset job.
pub(super) struct Cron;
/// The user whose quota is asked for: by JWT, or named by a service.
pub(super) struct Caller(pub(super) UserId);

enum Identity {
    User(UserId),
    Service,
    Admin,
    Cron,
}

impl Auth {
    /// Checks the options.
    ///
    /// # Errors
    /// If a secret is too short, the issuer is missing, or a hash is no SHA-256.
    pub fn new(options: &AuthOptions<'_>) -> Result<Self, InvalidInput> {
        if options.jwt_secret.len() < SECRET_BYTES_MIN {
            return Err(InvalidInput { field: "auth.jwt_secret", rule: "must have at least 32 bytes".into() });
        }
        for (field, value) in [("auth.jwt_issuer", options.jwt_issuer), ("auth.jwt_audience", options.jwt_audience)] {
            if value.is_empty() {
                return Err(InvalidInput { field, rule: "must be set: users' JWTs have to name it".into() });
            }
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[options.jwt_issuer]);
        validation.set_audience(&[options.jwt_audience]);
        validation.leeway = options.jwt_leeway_seconds;
        validation.validate_nbf = true;
        Ok(Self {
            key: DecodingKey::from_secret(options.jwt_secret.as_bytes()),
            validation,
            services: hashes("auth.service_tokens_sha256", options.service_tokens_sha256)?,
            admins: hashes("auth.admin_tokens_sha256", options.admin_tokens_sha256)?,
            crons: hashes("auth.cron_tokens_sha256", options.cron_tokens_sha256)?,
        })
    }

    fn identify(&self, headers: &HeaderMap) -> Option<Identity> {
        let credential = bearer(headers)?;
        let hash: [u8; 32] = Sha256::digest(credential).into();
        if one_of(&self.services, &hash) {
            Some(Identity::Service)
        } else if one_of(&self.admins, &hash) {
            Some(Identity::Admin)
        } else if one_of(&self.crons, &hash) {
            Some(Identity::Cron)
        } else {
            let claims = decode::<Claims>(credential, &self.key, &self.validation).ok()?.claims;
            UserId::parse(&claims.sub).ok().map(Identity::User)
        }
    }
}

/// The credential of `Authorization: Bearer …`, given exactly once.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = once(headers, header::AUTHORIZATION.as_str()).ok()??;
    let (scheme, credential) = value.split_once(' ')?;
    let usable = scheme.eq_ignore_ascii_case("bearer") && credential.len() <= CREDENTIAL_BYTES_MAX;
    usable.then_some(credential.trim_start())
}

/// A header's value; an error when it is given twice or is no visible ASCII.
fn once<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::new(Code::InvalidRequest, format!("{name} is given more than once")));
    }
    value
        .map(|value| value.to_str().map_err(|_| Problem::new(Code::InvalidRequest, format!("{name} is no plain text"))))
        .transpose()
}

/// Compares with every hash, so that the time taken says nothing.
fn one_of(hashes: &[[u8; 32]], hash: &[u8; 32]) -> bool {
    hashes.iter().fold(false, |found, known| found | bool::from(known.ct_eq(hash)))
}

fn hashes(field: &'static str, list: &[String]) -> Result<Vec<[u8; 32]>, InvalidInput> {
    list.iter()
        .map(|text| {
            let parsed: Option<Vec<u8>> = (text.len() == 64 && text.is_ascii())
                .then(|| (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect())
                .flatten();
            parsed.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(|| InvalidInput {
                field,
                rule: "must be the token's SHA-256, 64 hexadecimal digits".into(),
            })
        })
        .collect()
}

/// The user whom a service names. A look-alike header is refused: a proxy may take it for the real one.
fn named_user(headers: &HeaderMap) -> Result<Option<UserId>, Problem> {
    let lookalike =
        headers.keys().any(|name| name.as_str() != X_USER_ID && name.as_str().replace('_', "-") == X_USER_ID);
    if lookalike {
        return Err(Problem::new(Code::InvalidRequest, "a header looks like X-User-Id and is not"));
    }
    once(headers, X_USER_ID)?.map(UserId::parse).transpose().map_err(Problem::from)
}

fn unauthenticated() -> Problem {
    Problem::bare(Code::Unauthenticated)
}

fn forbidden(who: &str) -> Problem {
    Problem::new(Code::Forbidden, format!("this needs the token of {who}"))
}

macro_rules! extract_role {
    ($role:ident, $who:literal) => {
        impl<S: Send + Sync> FromRequestParts<S> for $role
        where
            Arc<Auth>: FromRef<S>,
        {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
                match Arc::<Auth>::from_ref(state).identify(&parts.headers).ok_or_else(unauthenticated)? {
                    Identity::$role => Ok(Self),
                    _ => Err(forbidden($who)),
                }
            }
        }
    };
}

extract_role!(Service, "a chat service");
extract_role!(Admin, "an administrator");
extract_role!(Cron, "the reset job");

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Arc<Auth>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let identity = Arc::<Auth>::from_ref(state).identify(&parts.headers).ok_or_else(unauthenticated)?;
        let named = named_user(&parts.headers)?;
        match (identity, named) {
            (Identity::User(user), Some(named)) if named != user => {
                Err(Problem::new(Code::Forbidden, "only a chat service may name another user"))
            }
            (Identity::User(user), _) | (Identity::Service, Some(user)) => Ok(Self(user)),
            (Identity::Service, None) => {
                Err(Problem::new(Code::InvalidRequest, "a service has to name the user in X-User-Id"))
            }
            (Identity::Admin | Identity::Cron, _) => Err(forbidden("a user or a chat service")),
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("services", &self.services.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "a secret of at least thirty-two bytes";
    /// 2100-01-01, so that the tests need no clock.
    const LATER: u64 = 4_102_444_800;

    fn hash(token: &str) -> String {
        Sha256::digest(token).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn auth() -> Auth {
        Auth::new(&AuthOptions {
            jwt_secret: SECRET,
            jwt_issuer: "chat.example",
            jwt_audience: "chat",
            jwt_leeway_seconds: 30,
            service_tokens_sha256: &[hash("old"), hash("new")],
            admin_tokens_sha256: &[hash("admin")],
            cron_tokens_sha256: &[hash("cron")],
        })
        .unwrap()
    }

    fn headers(credential: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {credential}").parse().unwrap());
        headers
    }

    fn user_of(credential: &str) -> Option<String> {
        match auth().identify(&headers(credential)) {
            Some(Identity::User(user)) => Some(user.to_string()),
            _ => None,
        }
    }

    fn claims() -> Value {
        json!({"sub": "alice", "iss": "chat.example", "aud": "chat", "exp": LATER})
    }

    fn jwt(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> Value {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    #[test]
    fn a_good_token_names_its_user() {
        assert_eq!(user_of(&jwt(Algorithm::HS256, SECRET, &claims())), Some("alice".into()));
    }

    #[test]
    fn a_token_with_anything_wrong_names_nobody() {
        let bad = [
            with("sub", json!("{alice}")),
            with("sub", json!(7)),
            with("iss", json!("evil.example")),
            with("aud", json!("mail")),
            with("exp", json!(1)),
            with("exp", json!("4102444800")),
            with("exp", json!(null)),
            with("nbf", json!(LATER)),
            without("sub"),
            without("iss"),
            without("aud"),
            without("exp"),
        ];
        for claims in bad {
            assert_eq!(user_of(&jwt(Algorithm::HS256, SECRET, &claims)), None, "{claims}");
        }
        assert_eq!(user_of(&jwt(Algorithm::HS256, "another secret of thirty-two bytes!!", &claims())), None);
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            assert_eq!(user_of(&jwt(algorithm, SECRET, &claims())), None, "{algorithm:?}");
        }
    }

    #[test]
    fn an_unsigned_or_mangled_token_names_nobody() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
        let good = jwt(Algorithm::HS256, SECRET, &claims());
        let payload = BASE64.encode(claims().to_string());
        let none = format!("{}.{payload}.", BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#));
        for bad in [&none, &good[..good.len() - 1], &format!("{good}x"), "", "a.b.c", &"x".repeat(5000)] {
            assert_eq!(user_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_service_tokens_are_good_at_once_and_no_other() {
        for good in ["old", "new"] {
            assert!(matches!(auth().identify(&headers(good)), Some(Identity::Service)), "{good}");
        }
        assert!(auth().identify(&headers("older")).is_none());
        assert!(matches!(auth().identify(&headers("admin")), Some(Identity::Admin)));
        assert!(matches!(auth().identify(&headers("cron")), Some(Identity::Cron)));
    }

    #[test]
    fn credentials_given_twice_or_by_another_scheme_count_for_nothing() {
        let mut twice = headers("old");
        twice.append(header::AUTHORIZATION, "Bearer new".parse().unwrap());
        assert!(auth().identify(&twice).is_none());
        let mut basic = HeaderMap::new();
        basic.insert(header::AUTHORIZATION, "Basic old".parse().unwrap());
        assert!(auth().identify(&basic).is_none());
        assert!(auth().identify(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_header_that_looks_like_x_user_id_is_refused() {
        for name in ["x_user_id", "x-user_id", "x_user-id"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HeaderName::from_static(name), "bob".parse().unwrap());
            assert!(named_user(&headers).is_err(), "{name}");
        }
        let mut twice = HeaderMap::new();
        twice.append(X_USER_ID, "bob".parse().unwrap());
        twice.append(X_USER_ID, "eve".parse().unwrap());
        assert!(named_user(&twice).is_err());
    }

    #[test]
    fn weak_or_missing_secrets_are_refused() {
        let options = |jwt_secret, jwt_issuer, tokens: &[String]| {
            Auth::new(&AuthOptions {
                jwt_secret,
                jwt_issuer,
                jwt_audience: "chat",
                jwt_leeway_seconds: 0,
                service_tokens_sha256: tokens,
                admin_tokens_sha256: &[],
                cron_tokens_sha256: &[],
            })
        };
        assert!(options("short", "i", &[]).is_err());
        assert!(options(SECRET, "", &[]).is_err());
        for token in ["the token itself".to_owned(), "z".repeat(64)] {
            assert!(options(SECRET, "i", &[token]).is_err());
        }
    }
}
