//! Makes grants by billing events, and voids them when a payment is taken back.
//!
//! Postgres records and applies an event in one transaction. A repeated event changes nothing. Redis gets the changes
//! afterwards, from this gate or from any grant sync.

use crate::gate::{Gate, GateError};
use crate::{
    domain::{
        author::Author,
        grant::GRANTS_PER_USER_MAX,
        purchase::{Purchase, Refund},
    },
    store::postgres::{Bought, NewUser},
};

/// Author of changes by billing events.
const BILLING: &str = "billing";

impl Gate {
    /// Gives the packs of a purchase, each once, and all or none. If their payment has been taken back, they are voided
    /// immediately. Returns true if this event changed something.
    ///
    /// # Errors
    /// [`GateError::TooManyGrants`] if the user would have more than the maximum number; nothing is given, and the
    /// event can be repeated. [`GateError::Unavailable`] if Postgres is unavailable.
    pub async fn buy_packs(&self, purchase: &Purchase) -> Result<bool, GateError> {
        let Some(user) = purchase.grants.first().map(|grant| &grant.user) else { return Ok(false) };
        let gate = &self.0;
        let now = gate.now();
        let first = NewUser { calendar: gate.calendar, now };
        let author = Author { by: BILLING.into(), reason: format!("checkout {}", purchase.checkout) };
        match gate.postgres.buy(purchase, &author, &first).await? {
            Bought::TooMany => Err(GateError::TooManyGrants(GRANTS_PER_USER_MAX)),
            Bought::Applied(changed) => {
                self.send_grants_soon(user).await;
                Ok(changed)
            }
        }
    }

    /// Records a refund or a dispute, and voids what is left of the payment's packs if all of the payment was taken
    /// back. The purchase may follow later. Returns true if this event voided something.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Postgres is unavailable.
    pub async fn take_back_payment(&self, refund: &Refund) -> Result<bool, GateError> {
        let gate = &self.0;
        let what = if refund.disputed { "disputed" } else { "refunded" };
        let reason = format!("{}: payment {} is {what}", refund.event, refund.payment);
        let author = Author { by: BILLING.into(), reason };
        let users = gate.postgres.take_back(refund, &author, gate.now()).await?;
        for user in &users {
            self.send_grants_soon(user).await;
        }
        Ok(!users.is_empty())
    }
}
