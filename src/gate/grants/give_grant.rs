//! Gives a user a grant, first in Postgres, then in Redis.

use crate::gate::{Gate, GateError};
use crate::{
    domain::{InvalidInput, author::Author, grant::GRANTS_PER_USER_MAX, new_grant::NewGrant, user_id::UserId},
    store::postgres::{Given, GrantRow, NewUser},
};

/// Most grants that are listed.
const LISTED_MAX: u32 = 200;

/// A grant that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantGiven {
    /// The grant.
    pub grant: GrantRow,
    /// Whether it had been given before, by the same request.
    pub replayed: bool,
}

impl Gate {
    /// Gives a grant, once for each user and external id. A user who was never seen gets a row.
    ///
    /// Postgres has the grant when this returns. Redis has it too, unless Redis is unavailable: then the grant sync
    /// sends it as soon as Redis answers.
    ///
    /// # Errors
    /// [`GateError::Invalid`] if it has expired, [`GateError::Mismatch`] if the external id was used for another grant,
    /// [`GateError::TooManyGrants`] if the user has the maximum number, [`GateError::Unavailable`] if Postgres is
    /// unavailable.
    pub async fn give_grant(&self, grant: &NewGrant, author: &Author) -> Result<GrantGiven, GateError> {
        let gate = &self.0;
        let now = gate.now();
        let first = NewUser { calendar: gate.calendar, now };
        let given = match gate.postgres.give(gate.new_id(), grant, author, &first).await? {
            Given::Made(made) => GrantGiven { grant: made, replayed: false },
            Given::Known(known) if known.is_of(grant, author) => GrantGiven { grant: known, replayed: true },
            Given::Known(_) => {
                return Err(GateError::Mismatch("the externalId was used for another grant of this user"));
            }
            Given::Expired => {
                return Err(InvalidInput::new("expiresAt", format!("must be in the future; it is {now} now")).into());
            }
            Given::TooMany => return Err(GateError::TooManyGrants(GRANTS_PER_USER_MAX)),
        };
        // Also of a repeated request: the gate that gave the grant may have died before it sent it.
        self.send_grants_soon(&grant.user).await;
        Ok(given)
    }

    /// Returns the newest grants of a user on this gate's meter, newest first, also those that are used up, have
    /// expired or are voided.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Postgres is unavailable.
    pub async fn grants_of(&self, user: &UserId) -> Result<Vec<GrantRow>, GateError> {
        Ok(self.0.postgres.grants_of(user, self.1, LISTED_MAX).await?)
    }
}
