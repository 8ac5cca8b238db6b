//! One hold: kept alive while its answer is generated, and settled once, in a separate task.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{AnswerCost, Settlements};
use quota_gate::{
    domain::{
        ap::Ap,
        hold::{Reservation, SETTLE_WINDOW, Ttl},
    },
    gate::{Commit, Gate, GateError},
};

/// Pause between two attempts to settle. Postgres accepts what Redis does not, so one attempt is nearly always enough.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// AP held for one request. Dropping the guard releases it.
#[derive(Debug)]
pub(super) struct HoldGuard {
    gate: Gate,
    /// Changes with each extension.
    id: Arc<Mutex<String>>,
    ap: Ap,
    answer_cost: AnswerCost,
    settlements: Settlements,
    heartbeat: AbortHandle,
    is_settled: bool,
}

/// Share of the cost to charge: `delivered` of `declared` parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) delivered: u64,
    pub(super) declared: u64,
}

impl HoldGuard {
    pub(super) fn new(
        gate: &Gate,
        reservation: &Reservation,
        (ttl, lifetime_max): (Ttl, Duration),
        settlements: &Settlements,
    ) -> Self {
        let id = Arc::new(Mutex::new(gate.reservation_id(reservation)));
        let heartbeat = timeout(lifetime_max, keep_alive(gate.clone(), Arc::clone(&id), ttl));
        let heartbeat = tokio::spawn(heartbeat).abort_handle();
        let (gate, settlements, answer_cost) = (gate.clone(), settlements.clone(), AnswerCost::default());
        Self { gate, id, ap: reservation.ap, answer_cost, settlements, heartbeat, is_settled: false }
    }

    pub(super) fn answer_cost(&self) -> AnswerCost {
        self.answer_cost.clone()
    }

    pub(super) fn is_preamble(&self) -> bool {
        self.answer_cost.is_preamble()
    }

    pub(super) fn has_broken_off(&self) -> bool {
        self.answer_cost.has_broken_off()
    }

    /// Charges the cost of the answer, or a share of it.
    pub(super) fn commit(mut self, share: Option<Share>) {
        let mut commit = self.answer_cost.commit();
        if let Some(Share { delivered, declared }) = share {
            let whole = u64::from(commit.ap.unwrap_or(self.ap).get());
            // Rounded up: a client that received something pays something.
            let part = (whole * delivered.min(declared)).div_ceil(declared.max(1));
            commit.ap = Some(Ap::new(u32::try_from(part).unwrap_or(u32::MAX)));
        }
        self.settle(Some(commit));
    }

    /// Starts the settlement. No commit means a release.
    fn settle(&mut self, commit: Option<Commit>) {
        self.is_settled = true;
        self.heartbeat.abort();
        let id = self.id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let settling = settle(self.gate.clone(), id, commit);
        // Outside a runtime nothing can be settled; the hold expires.
        if let Ok(runtime) = Handle::try_current() {
            self.settlements.0.spawn_on(settling, &runtime);
        }
    }
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        if !self.is_settled {
            self.settle(None);
        }
    }
}

/// Extends the hold twice within its time to live.
async fn keep_alive(gate: Gate, id: Arc<Mutex<String>>, ttl: Ttl) {
    loop {
        sleep(Duration::from_millis(u64::from(ttl.ms()) / 2)).await;
        let now = id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match gate.extend(&now, ttl).await {
            Ok(extended) => {
                *id.lock().unwrap_or_else(PoisonError::into_inner) = gate.reservation_id(&extended.reservation);
            }
            // The hold is over. What is generated can still be committed.
            Err(GateError::ReservationExpired(_) | GateError::AlreadySettled(_)) => return,
            Err(error) => tracing::debug!(%error, "a hold could not be extended; trying again"),
        }
    }
}

async fn settle(gate: Gate, id: String, commit: Option<Commit>) {
    if let Err(error) = try_to_settle(&gate, &id, commit).await {
        fail(&error);
    }
}

/// Reports a failed settlement. The hold was charged, or its expiry gives it back.
pub(super) fn fail(error: &GateError) {
    metrics::counter!("quota_gate_settlements_failed_total").increment(1);
    tracing::error!(%error, "a message could not be settled");
}

/// Retries until the hold is settled, or the settlement is accepted or finally refused.
pub(super) async fn try_to_settle(gate: &Gate, id: &str, commit: Option<Commit>) -> Result<(), GateError> {
    let (mut pause, mut waited) = (RETRY_PAUSE_MIN, Duration::ZERO);
    loop {
        let outcome = match &commit {
            Some(commit) => gate.commit(id, commit.clone()).await.map(drop),
            None => gate.release(id).await.map(drop),
        };
        match outcome {
            Err(error) if error.is_transient() && waited < SETTLE_WINDOW.to_std().unwrap_or_default() => {
                tracing::debug!(%error, "a message is not settled yet; trying again");
            }
            settled => return settled,
        }
        sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}
