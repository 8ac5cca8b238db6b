//! Release: give a hold's AP back, because nothing was generated.

use super::{Gate, GateError, Inner, error::unexpected, settle::Settling};
use crate::{
    domain::{
        ap::Ap,
        decision::{Released, Settled},
        hold::Reservation,
        usage::Tokens,
    },
    store::{
        postgres::InboxKind,
        redis::{Operation, Status},
    },
};

impl Gate {
    /// Settles a hold by giving its AP back. Releasing again, or after expiry, has no effect and succeeds. While Redis is away
    /// Postgres accepts it.
    ///
    /// # Errors
    /// [`GateError::AlreadySettled`] after a commit, [`GateError::UnknownReservation`] for an id that no gate has signed.
    pub async fn release(&self, reservation_id: &str) -> Result<Settled<Released>, GateError> {
        let (_, reservation) = self.0.read_reservation(reservation_id)?;
        match self.release_now(&reservation).await {
            Err(failed) if failed.is_transient() => {
                let nothing = (Ap::ZERO, Tokens::default());
                self.accept_settlement(InboxKind::Release, &reservation, nothing, failed).await?;
                Ok(Settled::Later)
            }
            outcome => outcome.map(Settled::Now),
        }
    }

    /// The same, by Redis or not at all.
    pub(super) async fn release_now(&self, reservation: &Reservation) -> Result<Released, GateError> {
        let operation = |adopt| Operation::Release { reservation: reservation.clone(), adopt };
        let Settling::Answered(answer) = self.0.settle(reservation, operation).await? else {
            return Err(GateError::AlreadySettled("it was committed"));
        };
        match answer.status {
            Status::Ok => {
                Ok(Released { replayed: answer.replayed, quota: Inner::quota_of(&reservation.user, &answer) })
            }
            Status::Settled => Err(GateError::AlreadySettled("it was committed")),
            other => Err(unexpected("release", other)),
        }
    }
}
