//! Consume: checks and charges in one step.

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::gate::{
    Consume, Gate, GateError, Inner,
    decision_metrics::Asked,
    error::unexpected,
    message::idempotency::{Earlier, OTHER_REQUEST, id_of_first_version},
};
use crate::{
    domain::{
        decision::{Charged, Decision, Denied},
        meter::MeterCode,
        model_name::ModelName,
        rollout::Mode,
        user_limits::Occupies,
    },
    store::redis::{Idempotency, Operation, ReplyStatus},
};

impl Gate {
    /// Charges a message if the user's quota covers it.
    ///
    /// # Errors
    /// [`GateError::Mismatch`] if the Idempotency-Key was used for another request, [`GateError::Unavailable`] or
    /// [`GateError::RedisAway`] if nothing was charged, [`GateError::Indeterminate`] if the answer was lost.
    pub async fn consume(&self, request: Consume) -> Result<Decision<Charged>, GateError> {
        let mode = self.rollout().mode_for(&request.user);
        if mode == Mode::Off {
            return Ok(self.pass_out_of_rollout());
        }
        let asked = (Asked::Consume, mode, Instant::now());
        let event = self.0.id_of_consume((&request.user, self.1), request.idempotency_key.as_ref());
        let decision = match self.consume_now(&request, event).await {
            Err(away) if self.may_degrade(&away) => self.consume_degraded(&request, event, away).await,
            decision => decision,
        };
        let level_of = |charged: &Charged| (charged.quota.level, charged.degraded);
        self.0.decision_metrics.decided(asked, &decision, level_of, || self.levels());
        self.under(mode, decision)
    }

    /// Consumes in Redis only. `event` is the id of the charge.
    pub(in crate::gate) async fn consume_now(
        &self,
        request: &Consume,
        event: Uuid,
    ) -> Result<Decision<Charged>, GateError> {
        let gate = &self.0;
        let operation = gate.consume_operation(event, request, self.1);
        let deadline = Instant::now() + gate.deadline;
        let answer = loop {
            let account = (&request.user, self.1);
            let Some(key) = &request.idempotency_key else { break gate.call(account, operation).await? };
            let lookup = self.charged_earlier(event, request, key);
            let generation = match timeout_at(deadline, lookup).await.map_err(|_| GateError::slow())?? {
                Earlier::Charged(charged) => return Ok(Decision::Allowed(charged)),
                Earlier::NotBefore(generation) => generation,
            };
            if let Some(answer) = gate.try_call(Some(generation), account, &operation, deadline).await? {
                break answer;
            }
        };
        let ap = request.ap;
        let quota = Inner::quota_of(&request.user, &answer);
        match answer.status {
            ReplyStatus::Ok => {
                if !answer.replayed {
                    gate.decision_metrics.charged(ap);
                }
                let event = match &request.idempotency_key {
                    // The first answer may have been given in another epoch of the key.
                    Some(_) if answer.replayed && !answer.id.is_nil() => answer.id,
                    Some(key) if answer.replayed => id_of_first_version(&request.user, key),
                    _ => event,
                };
                Ok(Decision::Allowed(Charged { event, ap, quota, replayed: answer.replayed, degraded: false }))
            }
            ReplyStatus::Denied => Ok(Decision::Denied(Denied { required: ap, quota, occupies: Occupies::Nothing })),
            ReplyStatus::Mismatch => Err(GateError::Mismatch(OTHER_REQUEST)),
            ReplyStatus::Blocked => Err(GateError::Blocked),
            ReplyStatus::Shed => Err(GateError::shed()),
            other => Err(unexpected("consume", other)),
        }
    }
}

impl Inner {
    fn consume_operation(&self, event: Uuid, request: &Consume, meter: MeterCode) -> Operation {
        let Consume { session, ap, tokens, model, .. } = request;
        let idempotency = self.idempotency_of(request, meter);
        let (session, model) = (session.clone(), model.clone());
        Operation::Consume { cost: *ap, event, session, tokens: *tokens, model, idempotency }
    }

    /// Returns how repeats of the request are recognized, if it has a key.
    pub(in crate::gate) fn idempotency_of(&self, request: &Consume, meter: MeterCode) -> Option<Idempotency> {
        let Consume { user, session, ap, tokens, model, idempotency_key } = request;
        let key = idempotency_key.clone()?;
        let tokens_by_kind = tokens.kinds();
        let (ap, tokens) = (ap.get().to_be_bytes(), tokens.get().to_be_bytes());
        let kinds =
            tokens_by_kind.map(|kinds| [kinds.input(), kinds.cached_input(), kinds.output()].map(u32::to_be_bytes));
        let kinds = kinds.map(|kinds| kinds.concat());
        let mut parts = vec![session.as_str().as_bytes(), &ap, &tokens, ModelName::column(model.as_ref()).as_bytes()];
        parts.extend(kinds.as_deref());
        Some(self.idempotency((user, meter), key, "consume", &parts))
    }
}
