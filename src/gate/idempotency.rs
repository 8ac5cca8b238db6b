//! Idempotency: what makes a repeated request the same request.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Inner;
use crate::{
    domain::{idempotency::IdempotencyKey, user_id::UserId},
    store::redis::Idempotency,
};

impl Inner {
    /// How to keep the answer to a request: `parts` are all that makes it this request.
    pub(super) fn idempotency(&self, key: IdempotencyKey, route: &str, parts: &[&[u8]]) -> Idempotency {
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&digest(route, parts)[..16]);
        let ttl_ms = u64::try_from(self.idempotency_ttl.as_millis()).unwrap_or(u64::MAX);
        Idempotency { key, fingerprint, ttl_ms }
    }

    /// The id of what a request makes: always the same for the same key, so that Postgres recognises it too.
    pub(super) fn id_of(&self, route: &str, user: &UserId, key: Option<&IdempotencyKey>) -> Uuid {
        let Some(key) = key else { return self.new_id() };
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest(route, &[user.as_str().as_bytes(), key.as_str().as_bytes()])[..16]);
        Uuid::new_v8(bytes)
    }
}

/// SHA-256 over the parts, each with its length before it, so that no two lists of parts look alike.
fn digest(route: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(route.as_bytes()).chain(parts.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
