//! The inbox: Postgres accepts settlements while Redis is unavailable; they are applied once Redis is back.
//!
//! An item may be applied repeatedly, by any gate, after any crash. Redis remembers a settlement by its hold, the log a
//! charge; a degraded message carries an Idempotency-Key, its client's or one made of its own id.

use crate::gate::{Commit, Consume, Gate, GateError, ReservationSigner, message::commit::OTHER_COST};
use crate::{
    domain::{
        decision::Decision,
        hold::{Reservation, SETTLE_WINDOW},
        idempotency::IdempotencyKey,
    },
    store::postgres::{Acceptance, InboxItem, InboxKind, PostgresError},
};

/// Result of applying an inbox item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Applied; with a description.
    Done(String),
    /// The quota no longer covers the message: commit it, which charges what is still possible.
    Denied,
}

impl Gate {
    /// Accepts a settlement that could not be made now. If that fails too, returns `failed`, the error of the attempt.
    pub(in crate::gate) async fn accept_settlement(
        &self,
        kind: InboxKind,
        reservation: &Reservation,
        settlement: Commit,
        failed: GateError,
    ) -> Result<(), GateError> {
        let gate = &self.0;
        let now = gate.now();
        if kind == InboxKind::Commit && now > reservation.expires_at + SETTLE_WINDOW {
            return Err(failed);
        }
        let item = InboxItem {
            id: reservation.hold,
            user: reservation.user.clone(),
            kind,
            reservation_id: gate.signer.sign(reservation),
            ap: settlement.ap.unwrap_or(reservation.ap),
            tokens: settlement.tokens,
            model: settlement.model,
            idempotency_key: None,
            meter: reservation.meter,
            accepted_at: now,
        };
        self.accept(&item, failed).await
    }

    /// Puts an item into the inbox. If Postgres is unavailable too, returns `failed`, the error of the earlier attempt.
    pub(in crate::gate) async fn accept(&self, item: &InboxItem, failed: GateError) -> Result<(), GateError> {
        match self.0.postgres.accept(item).await {
            Ok(Acceptance::Accepted) => {
                metrics::counter!("quota_gate_inbox_accepted_total", "kind" => item.kind.as_str()).increment(1);
                Ok(())
            }
            // The message was allowed before, and what its quota does not cover is being recorded.
            Ok(Acceptance::OtherKind(InboxKind::Commit)) if item.kind == InboxKind::Consume => Ok(()),
            Ok(Acceptance::OtherKind(InboxKind::Release)) => Err(GateError::AlreadySettled("it was released")),
            Ok(Acceptance::OtherKind(_)) => Err(GateError::AlreadySettled("it was committed")),
            Ok(Acceptance::OtherCost) => Err(GateError::Mismatch(OTHER_COST)),
            Err(PostgresError::Forgotten(_)) => Err(GateError::Forgotten),
            Err(error) => {
                tracing::warn!(%error, kind = item.kind.as_str(), "Postgres cannot accept an inbox item");
                Err(failed)
            }
        }
    }

    /// Applies an inbox item. Repeating this is harmless.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable.
    pub async fn apply(&self, item: &InboxItem) -> Result<Applied, GateError> {
        let reservation =
            ReservationSigner::read_verified(&item.reservation_id).ok_or(GateError::UnknownReservation)?;
        let outcome = match item.kind {
            InboxKind::Consume => return self.apply_consume(item, reservation).await,
            InboxKind::Commit => {
                let commit = Commit { ap: Some(item.ap), tokens: item.tokens, model: item.model.clone() };
                // Only a message that was a consume before has a key.
                let keyed = item.idempotency_key.is_some();
                let idempotency =
                    keyed.then(|| self.0.idempotency_of(&message_of(item, &reservation), reservation.meter)).flatten();
                let committed = self.commit_now(&reservation, &commit, Some(item.accepted_at), idempotency).await;
                committed.map(|done| format!("charged {}, overage {}", done.charged.get(), done.overage.get()))
            }
            InboxKind::Release => self.release_now(&reservation).await.map(|_| "released".to_owned()),
        };
        match outcome {
            Err(error) if error.is_transient() => Err(error),
            Ok(done) => Ok(Applied::Done(done)),
            // It was settled differently before this item was accepted, or in between: the first settlement counts.
            Err(refused) => Ok(Applied::Done(refused.to_string())),
        }
    }

    async fn apply_consume(&self, item: &InboxItem, reservation: Reservation) -> Result<Applied, GateError> {
        let key = item.idempotency_key.clone().map_or_else(|| IdempotencyKey::parse(&item.id.to_string()), Ok)?;
        let message = Consume { idempotency_key: Some(key), ..message_of(item, &reservation) };
        match self.consume_now(&message, item.id).await {
            Ok(Decision::Allowed(charged)) => Ok(Applied::Done(format!("charged {}", charged.ap.get()))),
            // It was allowed before the user was blocked.
            Ok(Decision::Denied(_) | Decision::Passed(_)) | Err(GateError::Blocked) => Ok(Applied::Denied),
            Err(error) if error.is_transient() => Err(error),
            Err(refused) => Ok(Applied::Done(refused.to_string())),
        }
    }
}

/// Returns the message that became this item.
fn message_of(item: &InboxItem, reservation: &Reservation) -> Consume {
    Consume {
        user: item.user.clone(),
        session: reservation.session.clone(),
        ap: item.ap,
        tokens: item.tokens,
        model: item.model.clone(),
        idempotency_key: item.idempotency_key.clone(),
    }
}
