//! Authentication: a user by JWT, a service by a token that has an id and scopes.
//!
//! | file | what |
//! | --- | --- |
//! | `jwt` | JWTs of users, verified with a secret or a JWKS document |
//! | `tokens` | tokens of services |
//!
//! Only a service can name a user in `X-User-Id`.

mod jwt;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};

pub use self::{jwt::JwtOptions, tokens::TokenOptions};
use self::{
    jwt::Jwts,
    tokens::{Token, Tokens},
};
use crate::http::{
    answers::problem::{Code, Problem},
    rate_limit::RateLimits,
};
use crate::reloadable::Reloadable;
use quota_gate::domain::{InvalidInput, scope::Scope, user_id::UserId};

/// Maximum length of a credential.
const CREDENTIAL_BYTES_MAX: usize = 4096;
/// Header in which a service names the user.
const X_USER_ID: &str = "x-user-id";

/// Identifies callers and checks their scopes.
pub struct Auth {
    jwts: Jwts,
    tokens: Reloadable<Tokens>,
    limits: Arc<RateLimits>,
}

/// A service that may charge messages.
pub(crate) struct Service;
/// A caller that may change levels and the rollout, by the id of its token.
pub(crate) struct Admin(pub(crate) Arc<str>);
/// A caller that may give and void grants, by the id of its token.
pub(crate) struct Granter(pub(crate) Arc<str>);
/// A caller that may see the grants of any user.
pub(crate) struct GrantReader;
/// A caller that may run the resetter.
pub(crate) struct Cron;
/// The user whose quota is read: by JWT, or named by a service that may read.
pub(crate) struct Caller(pub(crate) UserId);

/// The user who sends a message: by JWT, or named by a service that may charge.
pub(crate) struct Sender(pub(crate) UserId);

enum Identity {
    User(UserId),
    Token(Token),
}

impl Auth {
    /// Checks the options and fetches the JWKS document, if any.
    ///
    /// # Errors
    /// If a secret is too short, the issuer is missing, a hash is not a SHA-256, or the JWKS document cannot be read.
    pub async fn new(
        jwt: &JwtOptions<'_>,
        tokens: &[TokenOptions],
        limits: Arc<RateLimits>,
    ) -> Result<Self, InvalidInput> {
        Ok(Self { jwts: Jwts::new(jwt).await?, tokens: Reloadable::new(Tokens::new(tokens)?), limits })
    }

    /// Replaces the tokens of services.
    ///
    /// # Errors
    /// If a hash is not a SHA-256, or a token has no scopes. The old ones stay.
    pub fn replace_tokens(&self, tokens: &[TokenOptions]) -> Result<(), InvalidInput> {
        self.tokens.replace(Tokens::new(tokens)?);
        Ok(())
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Problem> {
        let credential = bearer(headers).ok_or_else(unauthenticated)?;
        if let Some(token) = self.tokens.get().find(credential) {
            self.limits.token(&token.id)?;
            return Ok(Identity::Token(token.clone()));
        }
        self.jwts.user(credential).await.map(Identity::User).ok_or_else(unauthenticated)
    }

    /// Returns the id of the token if it has this scope.
    pub(crate) async fn require(&self, headers: &HeaderMap, scope: Scope) -> Result<Arc<str>, Problem> {
        self.require_any(headers, &[scope]).await
    }

    /// Returns the id of the token if it has one of these scopes. A refusal names the first one.
    async fn require_any(&self, headers: &HeaderMap, scopes: &[Scope]) -> Result<Arc<str>, Problem> {
        match self.identify(headers).await? {
            Identity::Token(token) if scopes.iter().any(|scope| token.may(*scope)) => Ok(Arc::clone(&token.id)),
            _ => Err(forbidden(scopes[0])),
        }
    }

    /// Returns the user of the JWT, or the one named by a service with this scope.
    async fn user_for(&self, headers: &HeaderMap, scope: Scope) -> Result<UserId, Problem> {
        let identity = self.identify(headers).await?;
        let named = named_user(headers)?;
        match (identity, named) {
            (Identity::User(user), Some(named)) if named != user => {
                Err(Problem::new(Code::Forbidden, "only a chat service may name another user"))
            }
            (Identity::Token(token), _) if !token.may(scope) => Err(forbidden(scope)),
            (Identity::User(user), _) | (Identity::Token(_), Some(user)) => Ok(user),
            (Identity::Token(_), None) => {
                Err(Problem::new(Code::InvalidRequest, "a service must name the user in X-User-Id"))
            }
        }
    }
}

/// Returns the credential of `Authorization: Bearer …`, given exactly once.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = once(headers, header::AUTHORIZATION.as_str()).ok()??;
    let (scheme, credential) = value.split_once(' ')?;
    let usable = scheme.eq_ignore_ascii_case("bearer") && credential.len() <= CREDENTIAL_BYTES_MAX;
    usable.then_some(credential.trim_start())
}

/// Returns a header's value. Fails if it is repeated or not visible ASCII.
fn once<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::new(Code::InvalidRequest, format!("{name} is given more than once")));
    }
    value
        .map(|value| value.to_str().map_err(|_| Problem::new(Code::InvalidRequest, format!("{name} is not printable"))))
        .transpose()
}

/// Returns the user in `X-User-Id`. Refuses look-alike headers, which a proxy may confuse with it.
fn named_user(headers: &HeaderMap) -> Result<Option<UserId>, Problem> {
    let lookalike =
        headers.keys().any(|name| name.as_str() != X_USER_ID && name.as_str().replace('_', "-") == X_USER_ID);
    if lookalike {
        return Err(Problem::new(Code::InvalidRequest, "a header name resembles X-User-Id"));
    }
    once(headers, X_USER_ID)?.map(UserId::parse).transpose().map_err(Problem::from)
}

fn unauthenticated() -> Problem {
    Problem::bare(Code::Unauthenticated)
}

fn forbidden(scope: Scope) -> Problem {
    Problem::new(Code::Forbidden, format!("this needs a token with the scope {}", scope.as_str()))
}

macro_rules! extract_role {
    ($role:ident, [$($scope:expr),+], $new:expr) => {
        impl<S: Send + Sync> FromRequestParts<S> for $role
        where
            Arc<Auth>: FromRef<S>,
        {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
                Arc::<Auth>::from_ref(state).require_any(&parts.headers, &[$($scope),+]).await.map($new)
            }
        }
    };
}

extract_role!(Service, [Scope::Consume], |_| Self);
extract_role!(Admin, [Scope::Admin], Self);
extract_role!(Granter, [Scope::Grant, Scope::Admin], Self);
extract_role!(GrantReader, [Scope::Read, Scope::Grant, Scope::Admin], |_| Self);
extract_role!(Cron, [Scope::Reset], |_| Self);

macro_rules! extract_user {
    ($user:ident, $scope:expr) => {
        impl<S: Send + Sync> FromRequestParts<S> for $user
        where
            Arc<Auth>: FromRef<S>,
        {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
                Arc::<Auth>::from_ref(state).user_for(&parts.headers, $scope).await.map(Self)
            }
        }
    };
}

extract_user!(Caller, Scope::Read);
extract_user!(Sender, Scope::Consume);

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("tokens", &self.tokens.get().count()).finish_non_exhaustive()
    }
}
