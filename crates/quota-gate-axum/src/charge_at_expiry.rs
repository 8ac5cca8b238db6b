//! Charges holds shortly before they expire, unless the caller has settled them.

use std::time::Duration;

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Settlements,
    hold_guard::{fail, try_to_settle},
};
use quota_gate::{
    domain::{
        hold::{Reservation, Ttl},
        model_name::ModelName,
    },
    gate::{Commit, Gate, GateError},
};

/// Time before the expiry at which a hold is charged. Afterwards only what is still free can be charged.
const BEFORE_EXPIRY: Duration = Duration::from_millis(500);

impl Settlements {
    /// Charges the hold shortly before it expires, unless it is settled by then, or immediately when the gate stops. A
    /// gate that is killed charges nothing.
    pub fn charge_at_expiry(
        &self,
        gate: &Gate,
        reservation: &Reservation,
        model: Option<ModelName>,
        ttl: Ttl,
        stopping: CancellationToken,
    ) {
        let (gate, id) = (gate.clone(), gate.reservation_id(reservation));
        let wait = Duration::from_millis(ttl.ms().into()).saturating_sub(BEFORE_EXPIRY);
        self.0.spawn(async move {
            select! {
                () = sleep(wait) => {}
                () = stopping.cancelled() => {}
            }
            match try_to_settle(&gate, &id, Some(Commit { model, ..Commit::default() })).await {
                // The service has settled it.
                Ok(()) | Err(GateError::AlreadySettled(_) | GateError::Mismatch(_)) => {}
                Err(error) => fail(&error),
            }
        });
    }
}
