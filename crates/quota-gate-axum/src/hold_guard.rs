//! One hold: kept alive while its answer is generated, and settled once, in a task of its own.

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

/// Between two tries to settle, at first and at most. Postgres accepts what Redis does not, so one try is nearly always enough.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// AP that is held for one request. Dropped, it is released.
#[derive(Debug)]
pub(super) struct HoldGuard {
    gate: Gate,
    /// Another one after each extension.
    id: Arc<Mutex<String>>,
    ap: Ap,
    answer_cost: AnswerCost,
    settlements: Settlements,
    heartbeat: AbortHandle,
    is_settled: bool,
}

/// How much of the cost is charged: `delivered` of `declared` parts.
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

    /// Charges what was answer_cost, or a share of it.
    pub(super) fn commit(mut self, share: Option<Share>) {
        let mut commit = self.answer_cost.commit();
        if let Some(Share { delivered, declared }) = share {
            let whole = u64::from(commit.ap.unwrap_or(self.ap).get());
            // Rounded up: whoever got something pays something.
            let part = (whole * delivered.min(declared)).div_ceil(declared.max(1));
            commit.ap = Some(Ap::new(u32::try_from(part).unwrap_or(u32::MAX)));
        }
        self.settle(Some(commit));
    }

    /// Starts the settlement; none is a release.
    fn settle(&mut self, commit: Option<Commit>) {
        self.is_settled = true;
        self.heartbeat.abort();
        let id = self.id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let settling = settle(self.gate.clone(), id, commit);
        // Outside of a runtime nothing can be settled any more; the hold expires.
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
            // It is over already: what is generated can still be committed.
            Err(GateError::ReservationExpired(_) | GateError::AlreadySettled(_)) => return,
            Err(error) => tracing::debug!(%error, "a hold was not extended; it is tried again"),
        }
    }
}

async fn settle(gate: Gate, id: String, commit: Option<Commit>) {
    if let Err(error) = try_to_settle(&gate, &id, commit).await {
        fail(&error);
    }
}

/// It is charged or given back by its expiry.
pub(super) fn fail(error: &GateError) {
    metrics::counter!("quota_gate_settlements_failed_total").increment(1);
    tracing::error!(%error, "a message could not be settled");
}

/// Settles, again and again until it is settled, accepted, or refused for good.
pub(super) async fn try_to_settle(gate: &Gate, id: &str, commit: Option<Commit>) -> Result<(), GateError> {
    let (mut pause, mut waited) = (RETRY_PAUSE_MIN, Duration::ZERO);
    loop {
        let outcome = match &commit {
            Some(commit) => gate.commit(id, commit.clone()).await.map(drop),
            None => gate.release(id).await.map(drop),
        };
        match outcome {
            Err(error) if error.is_transient() && waited < SETTLE_WINDOW.to_std().unwrap_or_default() => {
                tracing::debug!(%error, "a message is not settled yet");
            }
            settled => return settled,
        }
        sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}
