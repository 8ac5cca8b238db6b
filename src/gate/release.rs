//! Release: give a hold's AP back, because nothing was generated.

use super::{Gate, GateError, Inner, error::unexpected, settle::Settling};
use crate::{
    domain::decision::Released,
    store::redis::{Operation, Status},
};

impl Gate {
    /// Settles a hold by giving its AP back. Releasing again, or after expiry, has no effect and succeeds.
    ///
    /// # Errors
    /// [`GateError::AlreadySettled`] after a commit, [`GateError::UnknownReservation`] for an id that no gate has signed.
    pub async fn release(&self, reservation_id: &str) -> Result<Released, GateError> {
        let (partition, reservation) = self.0.read_reservation(reservation_id)?;
        let operation = |adopt| Operation::Release { reservation: reservation.clone(), adopt };
        let Settling::Answered(answer) = self.0.settle(partition, &reservation, operation).await? else {
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
