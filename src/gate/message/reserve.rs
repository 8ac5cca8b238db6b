//! Reserve: holds AP before generating.

use tokio::time::Instant;

use crate::gate::{
    Gate, GateError, Inner, Reserve, decision_metrics::Asked, error::unexpected, message::idempotency::OTHER_REQUEST,
};
use crate::{
    domain::{
        decision::{Decision, Denied, Reserved},
        hold::{HOLDS_PER_USER_MAX, Reservation},
        rollout::Mode,
        user_limits::Occupies,
    },
    store::redis::{Operation, ReplyStatus},
};

impl Gate {
    /// Holds AP for a message if the user's quota covers it. If the hold is not settled in time, its AP is given back.
    ///
    /// # Errors
    /// [`GateError::TooManyHolds`], or [`GateError::Mismatch`] if the Idempotency-Key was used for another request;
    /// [`GateError::Unavailable`] or [`GateError::RedisAway`] if nothing was held, [`GateError::Indeterminate`] if the
    /// answer was lost.
    pub async fn reserve(&self, request: Reserve) -> Result<Decision<Reserved>, GateError> {
        let mode = self.rollout().mode_for(&request.user);
        if mode == Mode::Off {
            return Ok(self.pass_out_of_rollout());
        }
        let asked = (Asked::Reserve, mode, Instant::now());
        let decision = match self.reserve_now(&request).await {
            Err(away) if self.may_degrade(&away) => self.reserve_degraded(&request, away).await,
            decision => decision,
        };
        let level_of = |reserved: &Reserved| (reserved.quota.level, reserved.degraded);
        self.0.decision_metrics.decided(asked, &decision, level_of, || self.levels());
        self.under(mode, decision)
    }

    async fn reserve_now(&self, request: &Reserve) -> Result<Decision<Reserved>, GateError> {
        let Reserve { user, session, ap, ttl, idempotency_key } = request.clone();
        let gate = &self.0;
        let idempotency = idempotency_key.map(|key| {
            let (ap, ttl) = (ap.get().to_be_bytes(), ttl.ms().to_be_bytes());
            gate.idempotency((&user, self.1), key, "reserve", &[session.as_str().as_bytes(), &ap, &ttl])
        });
        // Not derived from the key: a forgotten key that is used again makes another hold, with its own settlement.
        let operation = Operation::Reserve { cost: ap, ttl, hold: gate.new_id(), idempotency };
        let answer = gate.call((&user, self.1), operation).await?;
        let quota = Inner::quota_of(&user, &answer);
        match answer.status {
            ReplyStatus::Ok => {
                let (generation, period) = answer.pinned.unwrap_or((answer.record.generation, answer.record.period));
                let reservation = Reservation {
                    hold: answer.id,
                    user,
                    session,
                    ap,
                    period,
                    expires_at: answer.expires_at,
                    generation,
                    granted: answer.granted,
                    made_at: answer.made_at,
                    meter: self.1,
                };
                Ok(Decision::Allowed(Reserved { reservation, quota, replayed: answer.replayed, degraded: false }))
            }
            ReplyStatus::Denied => Ok(Decision::Denied(Denied { required: ap, quota, occupies: Occupies::Hold })),
            ReplyStatus::TooManyHolds => Err(GateError::TooManyHolds(HOLDS_PER_USER_MAX)),
            ReplyStatus::Mismatch => Err(GateError::Mismatch(OTHER_REQUEST)),
            ReplyStatus::Blocked => Err(GateError::Blocked),
            ReplyStatus::Shed => Err(GateError::shed()),
            other => Err(unexpected("reserve", other)),
        }
    }
}
