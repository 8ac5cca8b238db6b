//! Refunds a charge: a grant of what it cost, once for each charge. The charge itself stays in the log.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    InvalidInput,
    ap::Ap,
    author::Author,
    new_grant::{ExternalId, GrantSource, NewGrant, Priority},
    user_id::UserId,
};
use crate::gate::{Gate, GateError, GrantGiven};

/// Source of the grant.
const SOURCE: &str = "refund";

impl Gate {
    /// Gives a user a grant for a charge, of all that was charged or of `ap`. Its external id is `refund-` and the id
    /// of the charge, so a charge is refunded once.
    ///
    /// # Errors
    /// [`GateError::UnknownCharge`] if the user's log has no such charge, [`GateError::Invalid`] if `ap` is more than
    /// was charged, [`GateError::Mismatch`] if another part of it was refunded before; and as
    /// [`give_grant`](Self::give_grant).
    pub async fn refund_charge(
        &self,
        user: &UserId,
        charge: Uuid,
        ap: Option<Ap>,
        author: &Author,
    ) -> Result<GrantGiven, GateError> {
        let (from, to) =
            (DateTime::UNIX_EPOCH, DateTime::<Utc>::from_timestamp(253_402_300_799, 0).unwrap_or_default());
        let logged = self.0.postgres.find_event(charge, user, from, to).await?.ok_or(GateError::UnknownCharge)?;
        let refunded = ap.unwrap_or(logged.ap);
        if refunded > logged.ap || refunded == Ap::ZERO {
            let rule = format!("must be 1 to {}, which the message has cost, not {refunded}", logged.ap);
            return Err(InvalidInput::new("ap", rule).into());
        }
        let grant = NewGrant {
            user: user.clone(),
            ap: refunded,
            expires_at: None,
            priority: Priority::DEFAULT,
            source: GrantSource::parse(SOURCE)?,
            external_id: ExternalId::parse(&format!("refund-{charge}"))?,
            meter: logged.meter,
        };
        self.give_grant(&grant, author).await
    }
}
