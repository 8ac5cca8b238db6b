//! Voids what is left of a grant, first in Postgres, then in Redis.

use uuid::Uuid;

use crate::gate::{Gate, GateError};
use crate::{
    domain::author::Author,
    store::postgres::{GrantRow, Voided},
};

/// A grant that was voided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantVoided {
    /// The grant. Charges that are not flushed yet still lower what was left of it.
    pub grant: GrantRow,
    /// Whether it had been voided before.
    pub replayed: bool,
}

impl Gate {
    /// Voids a grant: what is left of it cannot be used any more. Holds that were made before keep what they need of
    /// it. What was transferred to other users stays theirs.
    ///
    /// Postgres has the change when this returns. Redis has it too, unless Redis is unavailable: then the grant sync
    /// sends it as soon as Redis answers.
    ///
    /// # Errors
    /// [`GateError::UnknownGrant`] for an unknown id, or one of another meter, [`GateError::Unavailable`] if Postgres
    /// is unavailable.
    pub async fn void_grant(&self, id: Uuid, author: &Author) -> Result<GrantVoided, GateError> {
        let voided = self.0.postgres.void_grant((id, self.1), author, self.now()).await?;
        let voided = match voided.ok_or(GateError::UnknownGrant)? {
            Voided::Now(grant) => GrantVoided { grant, replayed: false },
            Voided::Before(grant) => GrantVoided { grant, replayed: true },
        };
        self.send_grants_soon(&voided.grant.user).await;
        Ok(voided)
    }
}
