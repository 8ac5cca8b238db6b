//! How a request with an Idempotency-Key is recognized in Redis. Twin: `lua/operation/idempotency.lua`.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::packed::PutBytes;
use crate::domain::{idempotency::IdempotencyKey, meter::MeterCode, user_id::UserId};

/// How to recognize a repeat of this request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The client's key of the request.
    pub(super) key: IdempotencyKey,
    /// Identifies user, meter and key among those of the partition.
    digest: [u8; 10],
    /// Spreads the answers over buckets.
    hash: [u8; 4],
    /// Distinguishes this request from another one with the same key.
    fingerprint: [u8; 4],
    keep_seconds: u32,
}

impl Idempotency {
    /// For a request of `user` on `meter` under `key`, remembered for `keep`. `request` is a hash of its contents.
    #[must_use]
    pub fn new((user, meter): (&UserId, MeterCode), key: IdempotencyKey, request: &[u8; 32], keep: Duration) -> Self {
        // User ids contain no slash, and are not empty.
        let sum = if meter.is_chat() {
            Sha256::digest(format!("{user}/{}", key.as_str()))
        } else {
            Sha256::digest(format!("/{}/{user}/{}", meter.get(), key.as_str()))
        };
        let (mut digest, mut hash, mut fingerprint) = ([0; 10], [0; 4], [0; 4]);
        digest.copy_from_slice(&sum[..10]);
        hash.copy_from_slice(&sum[10..14]);
        fingerprint.copy_from_slice(&request[..4]);
        // The script divides time by it.
        let keep_seconds = u32::try_from(keep.as_secs()).unwrap_or(u32::MAX).max(1);
        Self { key, digest, hash, fingerprint, keep_seconds }
    }

    /// Packs the arguments. `prefix` is the slot of the buckets' prefix.
    pub(super) fn encode(&self, prefix: u8, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.digest);
        to.extend_from_slice(&self.hash);
        to.extend_from_slice(&self.fingerprint);
        to.put_u8(prefix);
        to.put_u32(self.keep_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_packed_into_these_exact_bytes() {
        let key = IdempotencyKey::parse("k").unwrap();
        let bob = UserId::parse("bob").unwrap();
        let packed_on = |meter| {
            let kept = Idempotency::new((&bob, MeterCode::new(meter)), key.clone(), &[7; 32], Duration::from_secs(258));
            let mut bytes = Vec::new();
            kept.encode(3, &mut bytes);
            bytes
        };
        for (meter, digested) in [(0, "bob/k"), (5, "/5/bob/k")] {
            let (bytes, sum) = (packed_on(meter), Sha256::digest(digested));
            assert_eq!(bytes[..14], sum[..14]);
            assert_eq!(bytes[14..], [7, 7, 7, 7, 3, 0, 0, 1, 2]);
        }
    }
}
