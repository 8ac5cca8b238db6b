//! Idempotency: recognizes a repeated request.
//!
//! Redis stores the first answer. If Redis loses data, it loses the answers too, but flushed charges are in Postgres.
//! The id of a consume with a key is derived from the key, so the gate can look the charge up there. It does so after a
//! partition was reopened, for as long as keys are remembered; without a loss, never.

use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::gate::{Gate, GateError, Inner, request::Consume};
use crate::{
    domain::{
        calendar::SKEW_MAX, decision::Charged, idempotency::IdempotencyKey, partition::Partition, user_id::UserId,
    },
    store::redis::Idempotency,
};

/// Generation of an installation that has lost nothing yet.
const FIRST_GENERATION: u32 = 1;

/// Error text for a key that was used with a different request.
pub(in crate::gate) const OTHER_REQUEST: &str = "this Idempotency-Key was used for another request";

/// What Postgres knows about a request with a key.
pub(in crate::gate) enum Earlier {
    /// It was not charged before this generation, so it may be charged in this generation only.
    NotBefore(u32),
    /// It was charged in an earlier generation.
    Charged(Charged),
}

impl Inner {
    /// Returns how to store the answer to a request. `parts` are all values that identify it.
    pub(in crate::gate) fn idempotency(&self, key: IdempotencyKey, route: &str, parts: &[&[u8]]) -> Idempotency {
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&digest(route, parts)[..16]);
        let ttl_ms = u64::try_from(self.idempotency_ttl.as_millis()).unwrap_or(u64::MAX);
        Idempotency { key, fingerprint, ttl_ms }
    }

    /// Returns the id of what a request creates. The same key always gives the same id, so Postgres recognizes it too.
    pub(in crate::gate) fn id_of(&self, route: &str, user: &UserId, key: Option<&IdempotencyKey>) -> Uuid {
        let Some(key) = key else { return self.new_id() };
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest(route, &[user.as_str().as_bytes(), key.as_str().as_bytes()])[..16]);
        Uuid::new_v8(bytes)
    }
}

impl Gate {
    /// Checks whether this request, which has a key, was charged in a generation whose answers Redis has lost.
    pub(in crate::gate) async fn charged_earlier(
        &self,
        partition: Partition,
        event: Uuid,
        request: &Consume,
    ) -> Result<Earlier, GateError> {
        let gate = &self.0;
        let (assumed, opened_at) = gate.generations.opened(partition);
        let now = gate.now();
        let remembered = TimeDelta::from_std(gate.idempotency_ttl).unwrap_or(TimeDelta::MAX);
        // If this generation is over by now, the call is STALE.
        if assumed <= FIRST_GENERATION || opened_at.is_some_and(|at| at + remembered < now) {
            return Ok(Earlier::NotBefore(assumed));
        }
        let watermark = gate.postgres.watermark(partition.number()).await?;
        gate.generations.learn(partition, watermark.generation, Some(watermark.opened_at));
        if watermark.opened_at + remembered < now {
            return Ok(Earlier::NotBefore(watermark.generation));
        }
        // Events have the time of Redis.
        let (from, to) = (now - remembered, now + SKEW_MAX);
        let Some(logged) = gate.postgres.find_event(event, &request.user, from, to).await? else {
            return Ok(Earlier::NotBefore(watermark.generation));
        };
        // A message that was allowed while Redis was unavailable may be overage in part.
        let same = logged.ap.saturating_add(logged.overage) == request.ap
            && logged.session == request.session.as_str()
            && u32::try_from(logged.tokens) == Ok(request.tokens.get())
            && logged.model == request.model;
        if !same {
            return Err(GateError::Mismatch(OTHER_REQUEST));
        }
        let quota = self.quota(&request.user).await?;
        Ok(Earlier::Charged(Charged { event, ap: logged.ap, quota, replayed: true, degraded: false }))
    }
}

/// Returns the SHA-256 of the parts, each preceded by its length, so that different lists have different input.
fn digest(route: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(route.as_bytes()).chain(parts.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
