//! Tokens of services: each with an id, scopes, and one or two secrets, of which the configuration has only the SHA-256.
//!
//! A slow hash would gain nothing: a token is 256 random bits, not a word that somebody can guess.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::hex;
use quota_gate::domain::{InvalidInput, scope::Scope};

/// A token, as the configuration has it.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// What logs and rate limits call it.
    pub id: String,
    /// SHA-256 of the secret, in hexadecimal. Two may be active, to change one for the other.
    pub sha256: Vec<String>,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
}

/// All tokens of services.
pub(crate) struct Tokens(Vec<Token>);

/// A token of a service.
pub(crate) struct Token {
    pub(crate) id: Arc<str>,
    hashes: Vec<[u8; 32]>,
    scopes: Vec<Scope>,
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
            Ok(Token { id, hashes: hashes.collect::<Result<_, _>>()?, scopes: options.scopes.clone() })
        };
        options.iter().map(token).collect::<Result<_, _>>().map(Self)
    }

    /// The token with this secret. Looks at every hash, so that the time taken says nothing.
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
        Sha256::digest(token).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn options(sha256: &[String], scopes: &[Scope]) -> TokenOptions {
        TokenOptions { id: "chat".into(), sha256: sha256.to_vec(), scopes: scopes.to_vec() }
    }

    #[test]
    fn two_secrets_are_good_at_once_and_no_other() {
        let tokens = Tokens::new(&[options(&[hash("old"), hash("new")], &[Scope::Consume])]).unwrap();
        for good in ["old", "new"] {
            let token = tokens.find(good).unwrap();
            assert!(token.may(Scope::Consume) && !token.may(Scope::Admin), "{good}");
        }
        assert!(tokens.find("older").is_none() && tokens.find("").is_none());
    }

    #[test]
    fn what_is_no_hash_or_has_no_scope_is_refused() {
        for bad in ["the token itself".to_owned(), "z".repeat(64), hash("x")[..63].to_owned(), "é".repeat(32)] {
            assert!(Tokens::new(&[options(&[bad], &[Scope::Read])]).is_err());
        }
        assert!(Tokens::new(&[options(&[hash("x")], &[])]).is_err());
        assert!(Tokens::new(&[options(&[], &[Scope::Read])]).is_err());
    }
}
