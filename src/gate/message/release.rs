//! Release: gives back a hold's AP because nothing was generated.

use uuid::Uuid;

use crate::gate::{
    Commit, Gate, GateError, Inner, decision_metrics::Settlement, error::unexpected, message::settle::Settling,
};
use crate::{
    domain::{
        ap::Ap,
        author::Author,
        decision::{Released, Settled},
        hold::Reservation,
        user_id::{SessionId, UserId},
    },
    store::{
        postgres::InboxKind,
        redis::{Operation, ReplyStatus},
    },
};

impl Gate {
    /// Settles a hold by giving back its AP. Releasing again, or after expiry, has no effect and succeeds. While Redis
    /// is unavailable, Postgres accepts it.
    ///
    /// # Errors
    /// [`GateError::AlreadySettled`] after a commit, [`GateError::UnknownReservation`] for an id that no gate has
    /// signed.
    pub async fn release(&self, reservation_id: &str) -> Result<Settled<Released>, GateError> {
        let reservation = self.read_reservation(reservation_id)?;
        match self.release_now(&reservation).await {
            Err(failed) if failed.is_transient() => {
                let nothing = Commit { ap: Some(Ap::ZERO), ..Commit::default() };
                self.accept_settlement(InboxKind::Release, &reservation, nothing, failed).await?;
                Ok(Settled::Later)
            }
            outcome => outcome.map(Settled::Now),
        }
    }

    /// Releases a hold that is known by its id alone, and records who requested it.
    ///
    /// # Errors
    /// [`GateError::UnknownReservation`] if the user has no such hold, [`GateError::AlreadySettled`] if its holder
    /// settled it first, [`GateError::Unavailable`] if Postgres or Redis is unavailable.
    pub async fn release_hold(&self, user: &UserId, hold: Uuid, author: &Author) -> Result<Released, GateError> {
        let gate = &self.0;
        let (_, holds) = self.quota_and_holds(user).await?;
        let live = holds.into_iter().find(|live| live.id == hold).ok_or(GateError::UnknownReservation)?;
        let reservation = Reservation {
            hold,
            user: user.clone(),
            session: SessionId::unnamed(),
            ap: live.ap,
            period: live.period,
            expires_at: live.expires_at(),
            generation: self.generation(gate.partitions.of(user)),
            granted: Ap::ZERO,
            made_at: None,
            meter: self.1,
        };
        let noted = gate.postgres.note_release(user, (hold, live.ap), author, gate.now()).await?;
        let released = self.release_now(&reservation).await?;
        if let Err(error) = noted.made().await {
            tracing::error!(%error, %user, %hold, by = author.by, "a hold was released, but its author was not recorded");
        }
        Ok(released)
    }

    /// Releases in Redis only.
    pub(in crate::gate) async fn release_now(&self, reservation: &Reservation) -> Result<Released, GateError> {
        let operation = |adopt| Operation::Release { reservation: reservation.clone(), adopt };
        let Settling::Answered(answer) = self.0.settle(reservation, None, operation).await? else {
            return Err(GateError::AlreadySettled("it was committed"));
        };
        match answer.status {
            ReplyStatus::Ok => {
                if !answer.replayed {
                    self.0.decision_metrics.settled(Settlement::Released);
                }
                Ok(Released { replayed: answer.replayed, quota: Inner::quota_of(&reservation.user, &answer) })
            }
            ReplyStatus::Settled => Err(GateError::AlreadySettled("it was committed")),
            other => Err(unexpected("release", other)),
        }
    }
}
