//! Tokens of services: an id, scopes, and the SHA-256 of one or two secrets. A slow hash is unnecessary: a token has
//! 256 random bits and cannot be guessed.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::hex;
use quota_gate::domain::{InvalidInput, scope::Scope};

/// Configuration of a token.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// Name of the token in logs and rate limits.
    pub id: String,
    /// SHA-256 of the secret, in hexadecimal. Two may be active while one replaces the other.
    pub sha256: Vec<String>,
    /// Scopes of the token.
    pub scopes: Vec<Scope>,
}

pub(crate) struct Tokens(Vec<Token>);

#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) id: Arc<str>,
    hashes: Arc<[[u8; 32]]>,
    scopes: Arc<[Scope]>,
}

impl Tokens {
    pub(crate) fn new(options: &[TokenOptions]) -> Result<Self, InvalidInput> {
        let token = |options: &TokenOptions| {
            let invalid = |rule: String| InvalidInput { field: "auth.tokens", rule };
            if options.sha256.is_empty() || options.scopes.is_empty() {
                return Err(invalid(format!("{} needs sha256 and scopes", options.id)));
            }
            let hashes = options.sha256.iter().map(|text| {
                parse(text).ok_or_else(|| {
                    invalid(format!("{}.sha256 must be the token's SHA-256, 64 hexadecimal digits", options.id))
                })
            });
            let id = options.id.as_str().into();
            Ok(Token { id, hashes: hashes.collect::<Result<_, _>>()?, scopes: options.scopes.as_slice().into() })
        };
        options.iter().map(token).collect::<Result<_, _>>().map(Self)
    }

    /// Finds a token by its secret. Compares every hash, so that the duration reveals nothing.
    pub(crate) fn find(&self, secret: &str) -> Option<&Token> {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        self.0.iter().fold(None, |found, token| if token.has(&hash) { Some(token) } else { found })
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Token {
    fn has(&self, hash: &[u8; 32]) -> bool {
        self.hashes.iter().fold(false, |found, known| found | bool::from(known.ct_eq(hash)))
    }

    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    hex::decode(text)?.try_into().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn hash(token: &str) -> String {
        hex::encode(&Sha256::digest(token))
    }

    fn options(sha256: &[String], scopes: &[Scope]) -> TokenOptions {
        TokenOptions { id: "chat".into(), sha256: sha256.to_vec(), scopes: scopes.to_vec() }
    }

    #[test]
    fn only_the_two_active_secrets_are_accepted() {
        let tokens = Tokens::new(&[options(&[hash("old"), hash("new")], &[Scope::Consume])]).unwrap();
        for good in ["old", "new"] {
            let token = tokens.find(good).unwrap();
            assert!(token.may(Scope::Consume) && !token.may(Scope::Admin), "{good}");
        }
        assert!(tokens.find("older").is_none() && tokens.find("").is_none());
    }

    #[test]
    fn token_without_a_valid_hash_or_a_scope_is_refused() {
        for bad in ["the token itself".to_owned(), "z".repeat(64), hash("x")[..63].to_owned(), "é".repeat(32)] {
            assert!(Tokens::new(&[options(&[bad], &[Scope::Read])]).is_err());
        }
        assert!(Tokens::new(&[options(&[hash("x")], &[])]).is_err());
        assert!(Tokens::new(&[options(&[], &[Scope::Read])]).is_err());
    }
}
