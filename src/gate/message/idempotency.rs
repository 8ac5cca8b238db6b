//! Idempotency: recognizes a repeated request.
//!
//! Redis stores the first answer for as long as keys are remembered. If Redis loses data, it loses the answers too, but
//! flushed charges are in Postgres. The id of a consume with a key is derived from the key, so the gate can look the
//! charge up there. It does so after Redis lost answers, for as long as keys are remembered; without a loss, never.
//!
//! A key may be used again once it is forgotten, and must then make another charge. So its id also depends on the time:
//! time is divided into epochs as long as keys are remembered, which begin at another moment for each key. Charges of
//! one request can have ids of neighbouring epochs, and a look-up finds them all. Decision 0021 has the details.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::gate::{Gate, GateError, Inner, request::Consume};
use crate::{
    domain::{decision::Charged, idempotency::IdempotencyKey, meter::MeterCode, user_id::UserId},
    store::{
        postgres::{LoggedUsage, SoughtCharge},
        redis::Idempotency,
    },
};

/// What a request with a key asks for. It is part of the id of the charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gate) enum Route {
    Consume,
    Transfer,
}

/// Error text for a key that was used with a different request.
pub(in crate::gate) const OTHER_REQUEST: &str = "this Idempotency-Key was used for another request";

/// What Postgres knows about a request with a key.
pub(in crate::gate) enum Earlier {
    /// It was not charged before this generation, so it may be charged in this generation only.
    NotBefore(u32),
    /// It was charged in an earlier generation.
    Charged(Charged),
}

/// What the log has of a request with a key.
pub(in crate::gate) enum Logged {
    /// Nothing before this generation, so it may be charged in this generation only.
    NotBefore(u32),
    /// Its charge, of an earlier generation.
    Row(LoggedUsage),
}

impl Inner {
    /// Returns how to store the answer to a request. `parts` are all values that identify it.
    pub(in crate::gate) fn idempotency(
        &self,
        account: (&UserId, MeterCode),
        key: IdempotencyKey,
        route: &str,
        parts: &[&[u8]],
    ) -> Idempotency {
        Idempotency::new(account, key, &digest(route, parts), self.idempotency_ttl)
    }

    /// Returns the id of the charge of a consume. A repeat within the key's epoch has the same id.
    pub(in crate::gate) fn id_of_consume(&self, account: (&UserId, MeterCode), key: Option<&IdempotencyKey>) -> Uuid {
        let Some(key) = key else { return self.new_id() };
        self.id_under_key(Route::Consume, account, key)
    }

    /// Returns the id of the charge of a request with a key. A repeat within the key's epoch has the same id.
    pub(in crate::gate) fn id_under_key(
        &self,
        route: Route,
        account: (&UserId, MeterCode),
        key: &IdempotencyKey,
    ) -> Uuid {
        id_in_epoch(route, account, key, self.epoch(account.0, key, self.now()))
    }

    /// Returns the ids that a charge can have which was made under this key while it is remembered: of the previous
    /// epoch, of the present one, and of the next one, because clocks differ; and the one that version 0.1.0 made.
    fn ids_under_key(
        &self,
        route: Route,
        account: (&UserId, MeterCode),
        key: &IdempotencyKey,
    ) -> impl Iterator<Item = Uuid> {
        let epoch = self.epoch(account.0, key, self.now());
        let epochs = [epoch.saturating_sub(1), epoch, epoch.saturating_add(1)];
        let had_first_version = route == Route::Consume && account.1.is_chat();
        let of_first_version = had_first_version.then(|| id_of_first_version(account.0, key));
        epochs.map(|epoch| id_in_epoch(route, account, key, epoch)).into_iter().chain(of_first_version)
    }

    fn epoch(&self, user: &UserId, key: &IdempotencyKey, at: DateTime<Utc>) -> u64 {
        let length_ms = u64::try_from(self.idempotency_ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let hash = digest("epoch", &[user.as_str().as_bytes(), key.as_str().as_bytes()]);
        let mut offset = [0; 8];
        offset.copy_from_slice(&hash[..8]);
        let now_ms = u64::try_from(at.timestamp_millis()).unwrap_or_default();
        now_ms.saturating_add(u64::from_be_bytes(offset) % length_ms) / length_ms
    }
}

impl Gate {
    /// Checks whether this request, which has a key, was charged in a generation whose answers Redis has lost.
    pub(in crate::gate) async fn charged_earlier(
        &self,
        event: Uuid,
        request: &Consume,
        key: &IdempotencyKey,
    ) -> Result<Earlier, GateError> {
        let logged = match self.logged_earlier(Route::Consume, event, &request.user, key).await? {
            Logged::NotBefore(generation) => return Ok(Earlier::NotBefore(generation)),
            Logged::Row(logged) => logged,
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
        Ok(Earlier::Charged(Charged { event: logged.event, ap: logged.ap, quota, replayed: true, degraded: false }))
    }

    /// Looks up a request with a key in the log, if Redis may have lost its answer. `event` is its id now.
    pub(in crate::gate) async fn logged_earlier(
        &self,
        route: Route,
        event: Uuid,
        user: &UserId,
        key: &IdempotencyKey,
    ) -> Result<Logged, GateError> {
        let gate = &self.0;
        let partition = gate.partitions.of(user);
        let is_forgotten = |answers_since: DateTime<Utc>| {
            let age = (gate.now() - answers_since).to_std().unwrap_or_default();
            age > gate.idempotency_ttl
        };
        let (assumed, answers_since) = gate.generations.answers_since(partition);
        // If this generation is over by now, the call is STALE. Generation 0 always is.
        if assumed == 0 || answers_since.is_some_and(is_forgotten) {
            return Ok(Logged::NotBefore(assumed));
        }
        let events = gate.ids_under_key(route, (user, self.1), key).chain([event]).collect();
        let earlier = gate.lookups.find(SoughtCharge { partition, user: user.clone(), events }).await?;
        gate.generations.learn(partition, earlier.generation, Some(earlier.answers_since));
        Ok(earlier.logged.map_or(Logged::NotBefore(earlier.generation), Logged::Row))
    }
}

impl Route {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Transfer => "transfer",
        }
    }
}

/// Returns the id that version 0.1.0 gives to a charge under this key.
pub(in crate::gate) fn id_of_first_version(user: &UserId, key: &IdempotencyKey) -> Uuid {
    id_from(&digest(Route::Consume.as_str(), &[user.as_str().as_bytes(), key.as_str().as_bytes()]))
}

fn id_in_epoch(route: Route, (user, meter): (&UserId, MeterCode), key: &IdempotencyKey, epoch: u64) -> Uuid {
    // The same key on two meters makes two charges.
    let route = match route.as_str() {
        route if meter.is_chat() => Cow::Borrowed(route),
        route => Cow::Owned(format!("{route} {}", meter.get())),
    };
    id_from(&digest(&route, &[user.as_str().as_bytes(), key.as_str().as_bytes(), &epoch.to_be_bytes()]))
}

fn id_from(hash: &[u8; 32]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes)
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
