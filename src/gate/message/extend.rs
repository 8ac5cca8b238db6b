//! Extend: keeps a hold alive while its message is generated.

use crate::gate::{Gate, GateError, Inner, error::unexpected};
use crate::{
    domain::{
        decision::Reserved,
        hold::{Reservation, Ttl},
    },
    store::redis::{Operation, ReplyStatus},
};

impl Gate {
    /// Extends a hold to `ttl` from now; never shortens it. The returned reservation has the new expiry: use its id
    /// from now on.
    ///
    /// # Errors
    /// [`GateError::ReservationExpired`] if the hold has expired, [`GateError::AlreadySettled`],
    /// [`GateError::UnknownReservation`] for an id that no gate has signed.
    pub async fn extend(&self, reservation_id: &str, ttl: Ttl) -> Result<Reserved, GateError> {
        let reservation = self.read_reservation(reservation_id)?;
        let operation = Operation::Extend { hold: reservation.hold, ttl };
        let answer = self.0.call((&reservation.user, self.1), operation).await?;
        let quota = Inner::quota_of(&reservation.user, &answer);
        match answer.status {
            ReplyStatus::Ok => {
                let reservation = Reservation { expires_at: answer.expires_at, ..reservation };
                Ok(Reserved { reservation, quota, replayed: false, degraded: false })
            }
            ReplyStatus::Expired => {
                Err(GateError::ReservationExpired("it no longer holds AP; what was generated can still be committed"))
            }
            ReplyStatus::Settled => Err(GateError::AlreadySettled("it was committed or released")),
            other => Err(unexpected("extend", other)),
        }
    }
}
