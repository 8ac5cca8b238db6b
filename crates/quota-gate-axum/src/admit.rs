//! Admission: holds what a message costs before it is generated, and settles by the response.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http_body::Body as _;
use quota_gate::{
    domain::{decision::Decision, hold::Ttl, quota::Quota},
    gate::{Gate, Reserve},
};
use tokio::sync::oneshot;

use super::{AnswerCost, Ask, ClientGone, MeteredBody, Refusal, Settlements, hold_guard::HoldGuard};

/// No answer takes longer.
const LIFETIME_MAX: Duration = Duration::from_hours(1);

/// Admits messages. A cheap clone; clones share their settlements.
#[derive(Debug, Clone)]
pub struct Admitter {
    gate: Gate,
    ttl: Ttl,
    lifetime_max: Duration,
    client_gone: ClientGone,
    settlements: Settlements,
}

/// A message that may be generated. Dropping it releases the hold: nothing is charged.
#[derive(Debug)]
#[must_use = "a dropped admission releases its hold"]
pub struct Admission {
    /// None if the rollout passes this user's messages: nothing is held or charged.
    held: Option<(HoldGuard, Box<Quota>)>,
    answer_cost: AnswerCost,
    client_gone: ClientGone,
}

impl Admitter {
    /// Admits messages by this gate, with the default settings.
    #[must_use]
    pub fn new(gate: Gate) -> Self {
        Self {
            gate,
            ttl: Ttl::DEFAULT,
            lifetime_max: LIFETIME_MAX,
            client_gone: ClientGone::default(),
            settlements: Settlements::default(),
        }
    }

    /// Sets how long a hold lives between two extensions, and after its process was killed.
    #[must_use]
    pub fn ttl(self, ttl: Ttl) -> Self {
        Self { ttl, ..self }
    }

    /// Sets how long a hold is extended at most, whatever its answer does; an hour by default. After that it expires.
    #[must_use]
    pub fn lifetime_max(self, lifetime_max: Duration) -> Self {
        Self { lifetime_max, ..self }
    }

    /// Sets what a message costs if its client disconnects.
    #[must_use]
    pub fn client_gone(self, client_gone: ClientGone) -> Self {
        Self { client_gone, ..self }
    }

    /// Returns the settlements of all admissions.
    #[must_use]
    pub fn settlements(&self) -> Settlements {
        self.settlements.clone()
    }

    /// Holds what the message costs.
    ///
    /// # Errors
    /// [`Refusal`]: the quota does not cover the message, or the gate cannot decide.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn admit(&self, ask: Ask) -> Result<Admission, Refusal> {
        // A separate task makes the hold. If the client disconnects meanwhile, the task has no receiver, and releases
        // the hold.
        let (sender, receiver) = oneshot::channel();
        let admitter = self.clone();
        self.settlements.0.spawn(async move { drop(sender.send(admitter.hold(ask).await)) });
        receiver.await.expect("the task sends a result before it ends")
    }

    async fn hold(&self, ask: Ask) -> Result<Admission, Refusal> {
        let Ask { user, session, ap } = ask;
        let held = match self.gate.reserve(Reserve { user, session, ap, ttl: self.ttl, idempotency_key: None }).await {
            Ok(Decision::Allowed(reserved)) => {
                let times = (self.ttl, self.lifetime_max);
                let hold = HoldGuard::new(&self.gate, &reserved.reservation, times, &self.settlements);
                Some((hold, Box::new(reserved.quota)))
            }
            Ok(Decision::Denied(denied)) => return Err(Refusal::Denied(denied)),
            Ok(Decision::Passed(_)) => None,
            Err(error) => return Err(Refusal::Failed(error)),
        };
        let answer_cost = held.as_ref().map_or_else(AnswerCost::default, |(hold, _)| hold.answer_cost());
        Ok(Admission { held, answer_cost, client_gone: self.client_gone })
    }
}

impl Admission {
    /// Returns where to note what the answer really cost.
    #[must_use]
    pub fn answer_cost(&self) -> AnswerCost {
        self.answer_cost.clone()
    }

    /// Returns the user's quota with this hold in it; none if the rollout passes the user's messages.
    #[must_use]
    pub fn quota(&self) -> Option<&Quota> {
        self.held.as_ref().map(|(_, quota)| &**quota)
    }

    /// Settles by this response: an error status releases the hold; otherwise the body's end decides, as the
    /// [table](crate) says.
    #[must_use]
    pub fn settle_by(self, response: Response) -> Response {
        match self.held {
            Some((hold, _)) if response.status().is_success() => {
                let declared = response.body().size_hint().exact();
                response.map(|body| Body::new(MeteredBody::new(body, declared, hold, self.client_gone)))
            }
            _ => response,
        }
    }
}
