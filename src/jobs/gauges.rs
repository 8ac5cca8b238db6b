//! The gauges: what no event tells, looked up every few seconds for `/metrics`. And, a page at a time, whether Redis and Postgres agree.
//!
//! While Postgres is away the flush lag is told by the last known watermarks, for that is when it grows.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

use super::health::{FlushLag, HealthCheck};
use crate::{
    audit::{AuditError, verify::Verifier},
    domain::{calendar::Calendar, journal::Watermark, user_id::UserId},
};

const INTERVAL: Duration = Duration::from_secs(5);
/// Users that are compared at each step: a million in under two hours.
const COMPARED_USERS: u32 = 1_000;
/// To look for over-admission reads all of `chat_quotas`.
const OVER_ADMISSION_EVERY: Duration = Duration::from_mins(5);

/// Looks.
#[derive(Debug, Clone)]
pub struct Gauges {
    /// How the jobs are.
    pub health: HealthCheck,
    /// Compares the stores.
    pub verifier: Verifier,
    /// Tells when the period began.
    pub calendar: Calendar,
}

/// What was state so far.
#[derive(Debug, Default)]
pub struct GaugeState {
    watermarks: Vec<Watermark>,
    /// The last user that was compared in this round.
    compared: Option<UserId>,
    /// Users that differ: in this round, and in the last one that went through all.
    differ: (u64, u64),
    over_admission_at: Option<Instant>,
}

impl Gauges {
    /// Looks again and again, until cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        // A counter that begins with one has not risen, for Prometheus.
        for name in [
            "quota_gate_settlements_failed_total",
            "quota_gate_shed_requests_total",
            "quota_gate_commits_expired_total",
        ] {
            metrics::counter!(name).increment(0);
        }
        let mut state = GaugeState::default();
        loop {
            self.step(&mut state).await;
            select! {
                () = sleep(INTERVAL) => {}
                () = cancelled.cancelled() => return,
            }
        }
    }

    /// Looks once. What cannot be looked up keeps its last value; the breakers' gauges say why.
    pub async fn step(&self, state: &mut GaugeState) {
        let now = self.health.clock.now();
        let quiet = |error: &AuditError| tracing::debug!(%error, "a gauge keeps its last value");
        let _ = self.redis().await.inspect_err(quiet);
        self.flush_lag(state, now).await;
        let _ = self.jobs(now).await.inspect_err(quiet);
        let _ = self.compare(state).await.inspect_err(quiet);
        let _ = self.over_admission(state, now).await.inspect_err(quiet);
        let (redis, idle) = self.health.redis.pool_connections();
        pool("redis", redis as u64, idle as u64);
        let (postgres, idle) = self.health.postgres.pool_connections();
        pool("postgres", postgres.into(), idle as u64);
    }

    async fn redis(&self) -> Result<(), AuditError> {
        let server_info = self.health.redis.server_info().await?;
        set("quota_gate_redis_memory_used_bytes", server_info.used_memory);
        set("quota_gate_redis_memory_max_bytes", server_info.maxmemory);
        Ok(())
    }

    async fn flush_lag(&self, state: &mut GaugeState, now: DateTime<Utc>) {
        if let Ok(watermarks) = self.health.postgres.watermarks().await {
            state.watermarks = watermarks;
        }
        let Some(lag) = FlushLag::of(&self.health.partitions(&state.watermarks, now).await) else { return };
        set("quota_gate_flush_lag_events", lag.events);
        set("quota_gate_flush_lag_seconds", lag.seconds);
    }

    async fn jobs(&self, now: DateTime<Utc>) -> Result<(), AuditError> {
        let postgres = &self.health.postgres;
        let last_run = postgres.last_reset_run().await?.filter(|run| run.failed == 0 && run.error.is_none());
        let last_reset = last_run.map_or(self.health.started_at, |run| run.started_at);
        set("quota_gate_last_reset_timestamp_seconds", u64::try_from(last_reset.timestamp()).unwrap_or_default());
        set("quota_gate_due_rows", postgres.due_rows(now).await?);
        set("quota_gate_dead_letters", postgres.dead_letter_count().await?);
        set("quota_gate_inbox_waiting", postgres.inbox_waiting().await?.0);
        Ok(())
    }

    async fn compare(&self, state: &mut GaugeState) -> Result<(), AuditError> {
        let page = self.verifier.compare_page(state.compared.as_ref(), COMPARED_USERS).await?;
        for found in &page.differences {
            tracing::error!(user = %found.user, period = %found.period, reason = found.reason(),
                "Redis and Postgres say different things of a user: quota-gate verify");
        }
        state.differ.0 += page.differences.len() as u64;
        state.compared = page.last;
        if state.compared.is_none() {
            state.differ = (0, state.differ.0);
        }
        set("quota_gate_drift_users", state.differ.0.max(state.differ.1));
        metrics::counter!("quota_gate_compared_users_total").increment(page.users);
        Ok(())
    }

    async fn over_admission(&self, state: &mut GaugeState, now: DateTime<Utc>) -> Result<(), AuditError> {
        if state.over_admission_at.is_some_and(|at| at.elapsed() < OVER_ADMISSION_EVERY) {
            return Ok(());
        }
        let period = self.calendar.period_at(now);
        let since = self.calendar.period_start(period);
        let id = i32::try_from(period.id()).unwrap_or(i32::MAX);
        set("quota_gate_over_admitted_users", self.health.postgres.over_admitted(id, since).await?);
        state.over_admission_at = Some(Instant::now());
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
