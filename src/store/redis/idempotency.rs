//! How a request with an Idempotency-Key is recognized in Redis. Twin: `lua/operation/idempotency.lua`.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::packed::PutBytes;
use crate::domain::{idempotency::IdempotencyKey, user_id::UserId};

/// Buckets of a partition, a power of two. With up to 512 answers in each, Redis packs them; with fewer than some
/// eight, the bucket's own key costs more than its answers.
const BUCKETS: u16 = 4_096;

/// How to recognize a repeat of this request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The client's key of the request.
    pub(super) key: IdempotencyKey,
    /// Identifies user and key among those of the partition.
    digest: [u8; 10],
    /// Distinguishes this request from another one with the same key.
    fingerprint: [u8; 4],
    bucket: u16,
    keep_seconds: u32,
}

impl Idempotency {
    /// For a request of `user` under `key`, remembered for `keep`. `request` is a hash of its contents.
    #[must_use]
    pub fn new(user: &UserId, key: IdempotencyKey, request: &[u8; 32], keep: Duration) -> Self {
        // User ids contain no slash.
        let hash = Sha256::digest(format!("{user}/{}", key.as_str()));
        let (mut digest, mut fingerprint) = ([0; 10], [0; 4]);
        digest.copy_from_slice(&hash[..10]);
        fingerprint.copy_from_slice(&request[..4]);
        let bucket = u16::from_be_bytes([hash[10], hash[11]]) % BUCKETS;
        Self { key, digest, fingerprint, bucket, keep_seconds: u32::try_from(keep.as_secs()).unwrap_or(u32::MAX) }
    }

    /// The bucket that has the answer.
    pub(super) const fn bucket(&self) -> u16 {
        self.bucket
    }

    /// Packs the arguments. `slot` is the index of the bucket's key.
    pub(super) fn encode(&self, slot: u8, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.digest);
        to.extend_from_slice(&self.fingerprint);
        to.put_u8(slot);
        to.put_u32(self.keep_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_packed_into_these_exact_bytes() {
        let key = IdempotencyKey::parse("k").unwrap();
        let kept = Idempotency::new(&UserId::parse("bob").unwrap(), key, &[7; 32], Duration::from_secs(258));
        let mut bytes = Vec::new();
        kept.encode(3, &mut bytes);
        // sha256 of "bob/k"
        let hash = Sha256::digest("bob/k");
        assert_eq!(bytes[..10], hash[..10]);
        assert_eq!(bytes[10..], [7, 7, 7, 7, 3, 0, 0, 1, 2]);
        assert!(kept.bucket() < BUCKETS);
    }
}
