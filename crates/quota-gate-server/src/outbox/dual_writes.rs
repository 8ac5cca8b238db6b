//! Dual writes: delivers each charge to the old credits system as well, while both are in use.
//!
//! They follow the log, not the requests: the transaction that inserts a charge's log row also inserts its outbox item.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::outbox::{Outbox, old_credits::OldCredits};
use quota_gate::store::postgres::{DualWrite, Postgres, PostgresError};

/// The charges to deliver, and their receiver.
#[derive(Debug, Clone)]
pub struct DualWrites {
    /// Stores the charges.
    pub postgres: Postgres,
    /// Receives the charges.
    pub old: OldCredits,
}

impl Outbox for DualWrites {
    type Item = DualWrite;
    const JOB: &'static str = "dual_write";
    const ITEMS: &'static str = "charges for the old credits system";
    const TRIES: &'static str = "quota_gate_dual_writes_total";
    const WAITING: &'static str = "quota_gate_dual_writes_waiting";

    fn id_and_attempts(charge: &DualWrite) -> (Uuid, i32) {
        (charge.event, charge.attempts)
    }

    async fn claim(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<DualWrite>, PostgresError> {
        self.postgres.claim_dual_writes(now, until, limit).await
    }

    async fn deliver(&self, charge: &DualWrite, _: DateTime<Utc>) -> Result<(), String> {
        self.old.post(charge).await
    }

    async fn accepted(&self, event: Uuid, _: DateTime<Utc>) -> Result<(), PostgresError> {
        self.postgres.dual_write_done(event).await
    }

    async fn refused(&self, event: Uuid, due_at: DateTime<Utc>, error: &str) -> Result<(), PostgresError> {
        self.postgres.dual_write_failed(event, due_at, error).await
    }

    async fn waiting(&self, _: DateTime<Utc>) -> Result<u64, PostgresError> {
        self.postgres.dual_writes_waiting().await
    }
}
