//! Numbers the grants that transfers made, so that they can be sent to Redis.

use crate::{
    domain::user_id::UserId,
    gate::{Gate, GateError},
    store::postgres::NewUser,
};

impl Gate {
    /// Numbers a user's grants, as far as the maximum number of live grants allows. Returns how many have got a number.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn number_grants(&self, user: &UserId) -> Result<u64, GateError> {
        let first = NewUser { calendar: self.0.calendar, now: self.0.now() };
        Ok(self.0.postgres.number_grants(user, &first).await?)
    }
}
