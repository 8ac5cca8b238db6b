//! The gauges: metrics that are read every few seconds because no event reports them. Also compares Redis with
//! Postgres, a page at a time.
//!
//! While Postgres is unavailable, the flush lag is computed from the last known watermarks, because it grows then.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::job::{Job, Next, Pace, StepError};
use crate::{
    audit::{
        AuditError,
        health::{FlushLag, HealthCheck},
        verify::Verifier,
    },
    domain::{journal::Watermark, user_id::UserId},
    gate::Gate,
    store::postgres::Postgres,
};

/// Users that are compared in each step: a million in less than two hours.
const COMPARED_USERS: u32 = 1_000;
/// Looking for over-admission reads all of `chat_quotas`.
const OVER_ADMISSION_EVERY: Duration = Duration::from_mins(5);

/// Publishes the gauges.
#[derive(Debug, Clone)]
pub struct Gauges {
    gate: Gate,
    health: HealthCheck,
    verifier: Verifier,
    watermarks: Vec<Watermark>,
    /// The last user that was compared in this round.
    compared: Option<UserId>,
    /// Users that differ: in this round, and in the last complete round.
    differ: (u64, u64),
    over_admission_at: Option<Instant>,
}

impl Job for Gauges {
    fn name(&self) -> &'static str {
        "gauges"
    }

    fn pace(&self) -> Pace {
        let pause = Duration::from_secs(5);
        Pace { pause, retry_pause_max: pause, step_max: Duration::from_secs(30) }
    }

    /// A gauge that cannot be read keeps its last value; the gauges of the breakers show why.
    async fn step(&mut self) -> Result<Next, StepError> {
        let now = self.gate.now();
        let quiet = |error: &AuditError| tracing::debug!(%error, "a gauge keeps its last value");
        let _ = self.redis().await.inspect_err(quiet);
        self.flush_lag(now).await;
        let _ = self.jobs(now).await.inspect_err(quiet);
        let _ = self.compare().await.inspect_err(quiet);
        let _ = self.over_admission(now).await.inspect_err(quiet);
        let (redis, idle) = self.gate.redis().pool_connections();
        pool("redis", redis as u64, idle as u64);
        let (postgres, idle) = self.postgres().pool_connections();
        pool("postgres", postgres.into(), idle as u64);
        Ok(Next::AfterPause)
    }
}

impl Gauges {
    /// The gauges of this gate.
    #[must_use]
    pub fn new(gate: &Gate, health: HealthCheck) -> Self {
        // Prometheus sees no increase of a counter whose first value is 1.
        for name in [
            "quota_gate_settlements_failed_total",
            "quota_gate_shed_requests_total",
            "quota_gate_commits_expired_total",
            "quota_gate_generations_opened_total",
        ] {
            metrics::counter!(name).increment(0);
        }
        set("quota_gate_partitions", gate.partitions().count().into());
        Self {
            gate: gate.clone(),
            health,
            verifier: Verifier::new(gate),
            watermarks: Vec::new(),
            compared: None,
            differ: (0, 0),
            over_admission_at: None,
        }
    }

    fn postgres(&self) -> &Postgres {
        self.gate.postgres()
    }

    async fn redis(&self) -> Result<(), AuditError> {
        let server_info = self.gate.redis().server_info().await?;
        set("quota_gate_redis_memory_used_bytes", server_info.used_memory);
        set("quota_gate_redis_memory_max_bytes", server_info.maxmemory);
        Ok(())
    }

    async fn flush_lag(&mut self, now: DateTime<Utc>) {
        if let Ok(watermarks) = self.postgres().watermarks().await {
            self.watermarks = watermarks;
        }
        let partitions = self.health.partitions(&self.watermarks, now).await;
        // Also without a flusher in this process.
        for (partition, found) in self.gate.partitions().all().zip(&partitions) {
            if found.stream.is_some() {
                self.gate.note_newer_journal(partition, found.newer_format);
            }
        }
        let formats = partitions.iter().filter_map(|partition| partition.newer_format);
        set("quota_gate_newer_journal_format", formats.max().unwrap_or(0).into());
        let Some(lag) = FlushLag::of(&partitions) else { return };
        set("quota_gate_flush_lag_events", lag.events);
        set("quota_gate_flush_lag_seconds", lag.seconds);
    }

    async fn jobs(&self, now: DateTime<Utc>) -> Result<(), AuditError> {
        let postgres = self.postgres();
        let last_run = postgres.last_reset_run().await?.filter(|run| run.failed == 0 && run.error.is_none());
        let last_reset = last_run.map_or(self.health.started_at(), |run| run.started_at);
        set("quota_gate_last_reset_timestamp_seconds", u64::try_from(last_reset.timestamp()).unwrap_or_default());
        set("quota_gate_due_rows", postgres.due_rows(now).await?);
        set("quota_gate_dead_letters", postgres.dead_letter_count().await?);
        set("quota_gate_inbox_waiting", postgres.inbox_waiting().await?.0);
        Ok(())
    }

    async fn compare(&mut self) -> Result<(), AuditError> {
        let page = self.verifier.compare_page(self.compared.as_ref(), COMPARED_USERS).await?;
        for found in &page.differences {
            tracing::error!(user = %found.user, period = %found.period, reason = found.reason(),
                "Redis and Postgres say different things of a user: quota-gate verify");
        }
        for found in &page.level_drift {
            tracing::error!(user = %found.user, found = ?found.found, expected = ?found.expected,
                "the level or quota of a user in Redis is not the one in Postgres: quota-gate verify");
        }
        self.differ.0 += (page.differences.len() + page.level_drift.len()) as u64;
        self.compared = page.last;
        if self.compared.is_none() {
            self.differ = (0, self.differ.0);
        }
        set("quota_gate_drift_users", self.differ.0.max(self.differ.1));
        metrics::counter!("quota_gate_compared_users_total").increment(page.users);
        Ok(())
    }

    async fn over_admission(&mut self, now: DateTime<Utc>) -> Result<(), AuditError> {
        if self.over_admission_at.is_some_and(|at| at.elapsed() < OVER_ADMISSION_EVERY) {
            return Ok(());
        }
        set("quota_gate_over_admitted_users", self.postgres().over_admitted(now).await?);
        self.over_admission_at = Some(Instant::now());
        Ok(())
    }
}

fn pool(store: &'static str, all: u64, idle: u64) {
    for (state, count) in [("idle", idle), ("used", all.saturating_sub(idle))] {
        #[expect(clippy::cast_precision_loss, reason = "a metric needs no more")]
        metrics::gauge!("quota_gate_pool_connections", "store" => store, "state" => state).set(count as f64);
    }
}

fn set(name: &'static str, value: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a metric needs no more")]
    metrics::gauge!(name).set(value as f64);
}
