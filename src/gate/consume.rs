//! Consume: check and charge in one step.

use super::{Consume, Gate, GateError, Inner, error::unexpected};
use crate::{
    domain::decision::{Charged, Decision, Denied},
    store::redis::{Operation, Status},
};

impl Gate {
    /// Charges a message, if the user's quota covers it.
    ///
    /// # Errors
    /// [`GateError::Mismatch`] when the Idempotency-Key was used for another request,
    /// [`GateError::Unavailable`] when nothing was charged, [`GateError::Indeterminate`] when the answer was lost.
    pub async fn consume(&self, request: Consume) -> Result<Decision<Charged>, GateError> {
        let Consume { user, session, ap, tokens, idempotency_key } = request;
        let gate = &self.0;
        let event = gate.id_of("consume", &user, idempotency_key.as_ref());
        let idempotency = idempotency_key.map(|key| {
            let (ap, tokens) = (ap.get().to_be_bytes(), tokens.get().to_be_bytes());
            gate.idempotency(key, "consume", &[session.as_str().as_bytes(), &ap, &tokens])
        });
        let operation = Operation::Consume { cost: ap, event, session, tokens, idempotency };
        let answer = gate.call(&user, operation).await?;
        let quota = Inner::quota_of(&user, &answer);
        match answer.status {
            Status::Ok => Ok(Decision::Allowed(Charged {
                event: answer.id,
                ap: answer.charged,
                quota,
                replayed: answer.replayed,
            })),
            Status::Denied => Ok(Decision::Denied(Denied { required: ap, quota })),
            Status::Mismatch => Err(GateError::Mismatch("this Idempotency-Key was used for another request")),
            Status::Shed => Err(GateError::shed()),
            other => Err(unexpected("consume", other)),
        }
    }
}
