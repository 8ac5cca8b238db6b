//! Decisions without Redis, if the operator allows them: made from Postgres and marked `degraded`.
//!
//! They are not exact: Postgres lacks what is not flushed and what is held, and two gates may decide concurrently. So
//! concurrency is not limited. But each message goes into the inbox and is charged when Redis is back, as overage where
//! quota, windows and grants do not cover it then. A user who has exhausted them in Postgres is denied: Postgres never
//! counts too much.

use uuid::Uuid;

use crate::gate::{Consume, Gate, GateError, Inner, Reserve};
use crate::{
    domain::{
        ap::Ap,
        decision::{Charged, Decision, Denied, OnRedisFailure, Reserved},
        hold::{Reservation, Ttl},
        quota::Quota,
        user_id::{SessionId, UserId},
        user_limits::Occupies,
    },
    store::postgres::{InboxItem, InboxKind},
};

/// Generation that no hold in Redis has: the commit is checked against Postgres, and no AP is held for it.
const NO_GENERATION: u32 = 0;

impl Gate {
    pub(in crate::gate) fn may_degrade(&self, error: &GateError) -> bool {
        self.0.on_redis_failure == OnRedisFailure::Allow && matches!(error, GateError::RedisAway { .. })
    }

    pub(in crate::gate) async fn consume_degraded(
        &self,
        request: &Consume,
        event: Uuid,
        away: GateError,
    ) -> Result<Decision<Charged>, GateError> {
        let gate = &self.0;
        let quota = match self.quota_without_redis(&request.user, request.ap).await {
            Some(Ok(quota)) if quota.blocked => return Err(GateError::Blocked),
            Some(Ok(quota)) => quota,
            Some(Err(denied)) => return Ok(Decision::Denied(denied)),
            None => return Err(away),
        };
        let reservation = gate.unheld(event, &quota, (&request.user, &request.session), request.ap, Ttl::DEFAULT);
        let item = InboxItem {
            id: event,
            user: request.user.clone(),
            kind: InboxKind::Consume,
            reservation_id: gate.signer.sign(&reservation),
            ap: request.ap,
            tokens: request.tokens,
            model: request.model.clone(),
            idempotency_key: request.idempotency_key.clone(),
            accepted_at: gate.now(),
        };
        self.accept(&item, away).await?;
        count("consume");
        Ok(Decision::Allowed(Charged { event, ap: request.ap, quota, replayed: false, degraded: true }))
    }

    pub(in crate::gate) async fn reserve_degraded(
        &self,
        request: &Reserve,
        away: GateError,
    ) -> Result<Decision<Reserved>, GateError> {
        let gate = &self.0;
        match self.quota_without_redis(&request.user, request.ap).await {
            Some(Ok(quota)) if quota.blocked => Err(GateError::Blocked),
            Some(Ok(quota)) => {
                let user = (&request.user, &request.session);
                let reservation = gate.unheld(gate.new_id(), &quota, user, request.ap, request.ttl);
                count("reserve");
                Ok(Decision::Allowed(Reserved { reservation, quota, replayed: false, degraded: true }))
            }
            Some(Err(denied)) => Ok(Decision::Denied(denied)),
            None => Err(away),
        }
    }

    /// The quota by Postgres and the inbox, or a denial if the message does not fit. None without Postgres.
    async fn quota_without_redis(&self, user: &UserId, ap: Ap) -> Option<Result<Quota, Denied>> {
        let gate = &self.0;
        // Creates the row of a new user.
        gate.loader.load(gate.partitions.of(user), user).await.ok()?;
        let quota = gate.quota_from_postgres(user).await?;
        let quota = quota.with_waiting(gate.postgres.waiting_of(user).await.ok()?);
        let denied = Denied { required: ap, quota, occupies: Occupies::Nothing };
        if denied.binding(gate.calendar).is_empty() {
            return Some(Ok(denied.quota));
        }
        count("denied");
        Some(Err(denied))
    }
}

impl Inner {
    /// Returns a reservation without a hold.
    fn unheld(
        &self,
        hold: Uuid,
        quota: &Quota,
        (user, session): (&UserId, &SessionId),
        ap: Ap,
        ttl: Ttl,
    ) -> Reservation {
        Reservation {
            hold,
            user: user.clone(),
            session: session.clone(),
            ap,
            period: quota.period,
            expires_at: self.now() + chrono::TimeDelta::seconds(ttl.seconds().into()),
            generation: NO_GENERATION,
            granted: Ap::ZERO,
            made_at: None,
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("quota_gate_degraded_decisions_total", "outcome" => outcome).increment(1);
}
