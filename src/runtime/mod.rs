//! The runtime: a gate with its jobs. Starts them in order, supervises them, and shuts down without losing a charge.
//!
//! ```
//! # use quota_gate_dev::{PostgresServer, PostgresServerOptions, RedisServer, RedisServerOptions, ScratchDir};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = ScratchDir::new()?;
//! # let redis = RedisServer::start(&dir.path().join("redis"), RedisServerOptions::default()).await?;
//! # let postgres = PostgresServer::start(&dir.path().join("postgres"), PostgresServerOptions::default()).await?;
//! # let (database_url, redis_url) = (postgres.url("postgres"), redis.url());
//! use std::time::Duration;
//!
//! use quota_gate::runtime::{Runtime, RuntimeOptions};
//!
//! let secret = b"at least 32 random bytes, the same for every gate";
//! let options = RuntimeOptions::new(&database_url, &redis_url, secret)?;
//! options.postgres.migrate().await?; // creates the tables, or updates them
//! let runtime = Runtime::start(options).await?;
//! let gate = runtime.gate(); // consume, reserve, commit, release, quota
//! // … serve requests until the process is asked to stop, or `runtime.failed()` resolves …
//! runtime.shutdown(Duration::from_secs(20)).await;
//! # Ok(())
//! # }
//! ```

mod options;
mod start;
mod supervisor;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::supervisor::Supervisor;
pub use self::{
    options::{JobOptions, RuntimeOptions},
    start::{StartError, start_gate},
    supervisor::TaskFailed,
};
use crate::{
    audit::health::HealthCheck,
    gate::Gate,
    jobs::{
        flusher::Flusher,
        gauges::Gauges,
        grant_sync::GrantSync,
        inbox_worker::InboxWorker,
        job::{self, Job},
        level_sync::LevelSync,
        levels::LevelsReader,
        log_partitions::PartitionMaker,
        presence::Presence,
        quota_watcher::QuotaWatcher,
        resetter::Resetter,
        rollout_sync::RolloutSync,
        schedule::DailyReset,
    },
};

/// Longest time for the last report, and for closing. Both wait for
/// statements that are under way, one of which Postgres may not answer.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A running gate. Dropping it aborts the jobs; [`shutdown`](Self::shutdown) also flushes what was charged.
#[derive(Debug)]
pub struct Runtime {
    gate: Gate,
    quota_watcher: QuotaWatcher,
    health: HealthCheck,
    before_step: BeforeStep,
    supervisor: Supervisor,
    flushing: Supervisor,
    presence: Supervisor,
    stop: CancellationToken,
    stop_flushing: CancellationToken,
    stop_presence: CancellationToken,
}

/// Is called with a job's name before each of its steps.
#[derive(Clone)]
pub struct BeforeStep(pub Arc<dyn Fn(&'static str) + Send + Sync>);

impl Runtime {
    /// Connects to both stores, checks them, opens the partitions, and starts the jobs.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do.
    pub async fn start(options: RuntimeOptions) -> Result<Self, StartError> {
        let jobs = options.jobs.clone();
        Self::start_jobs(start_gate(options).await?, jobs).await
    }

    /// Starts the jobs of a gate that was started by [`start_gate`].
    ///
    /// # Errors
    /// If Postgres is unavailable.
    #[doc(hidden)]
    pub async fn start_jobs(gate: Gate, options: JobOptions) -> Result<Self, StartError> {
        let runtime = Self {
            quota_watcher: QuotaWatcher::new(&gate),
            health: HealthCheck::new(&gate, options.health),
            before_step: options.before_step,
            supervisor: Supervisor::new(),
            flushing: Supervisor::new(),
            presence: Supervisor::new(),
            stop: CancellationToken::new(),
            stop_flushing: CancellationToken::new(),
            stop_presence: CancellationToken::new(),
            gate,
        };
        let gate = &runtime.gate;
        // Before anything else: from now on no other Redis is opened.
        let presence = Presence::new(gate);
        presence.report().await.map_err(StartError::Presence)?;
        runtime.run_in(&runtime.presence, presence, &runtime.stop_presence);
        // The first message is decided by the current rollout.
        let mut rollout_sync = RolloutSync::new(gate, options.rollout);
        rollout_sync.sync().await.map_err(StartError::Rollout)?;
        runtime.run(rollout_sync);
        runtime.run(LevelsReader::new(gate));
        runtime.run(LevelSync::new(gate));
        runtime.run(GrantSync::new(gate));
        runtime.run(InboxWorker::new(gate));
        runtime.run(PartitionMaker::new(gate));
        runtime.run(runtime.quota_watcher.clone());
        if let Some(at) = options.reset_daily_at {
            runtime.run(DailyReset::new(Resetter::new(gate), at));
        }
        if options.gauges {
            runtime.run(Gauges::new(gate, runtime.health.clone()));
        }
        if let Some(options) = options.flusher {
            // It stops last, when nothing charges any more.
            runtime.run_in(&runtime.flushing, Flusher::new(gate.clone(), options), &runtime.stop_flushing);
        }
        Ok(runtime)
    }

    /// The gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Reports changes of users' quotas.
    #[must_use]
    pub fn quota_watcher(&self) -> &QuotaWatcher {
        &self.quota_watcher
    }

    /// Checks flushing and resets.
    #[must_use]
    pub fn health(&self) -> &HealthCheck {
        &self.health
    }

    /// Runs a job of the application's until shutdown, supervised as the gate's own are.
    pub fn run(&self, job: impl Job) {
        self.run_in(&self.supervisor, job, &self.stop);
    }

    /// Runs a task of the application until `stop` is cancelled, supervised like the jobs. `start` creates the task,
    /// also again when it ends.
    pub fn keep<F>(&self, name: &'static str, stop: CancellationToken, start: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.supervisor.keep(name, stop, start);
    }

    /// Resolves when a job has failed again after every restart. The process should end then, because the job no longer
    /// runs.
    pub async fn failed(&self) -> TaskFailed {
        tokio::select! {
            failed = self.supervisor.failed() => failed,
            failed = self.flushing.failed() => failed,
            failed = self.presence.failed() => failed,
        }
    }

    /// Stops the jobs, flushes what was charged, and closes the stores. Takes `within` at most, and two seconds more.
    ///
    /// Call it when no request charges any more. What cannot be flushed in time stays in Redis for the next gate.
    pub async fn shutdown(self, within: Duration) {
        let deadline = Instant::now() + within;
        self.stop.cancel();
        let others = self.supervisor.join(Instant::now() + within / 2).await;
        if others > 0 {
            tracing::warn!(jobs = others, "jobs took too long and were cut off");
        }
        self.stop_flushing.cancel();
        if self.flushing.join(deadline).await > 0 {
            tracing::warn!("the last flush took too long; the events stay in Redis for the next gate");
        }
        self.stop_presence.cancel();
        self.presence.join(Instant::now() + CLOSE_MAX).await;
        if timeout(CLOSE_MAX, self.gate.postgres().close()).await.is_err() {
            tracing::debug!("a connection to Postgres is still in use; it ends with the process");
        }
    }

    fn run_in<J: Job>(&self, supervisor: &Supervisor, job: J, stop: &CancellationToken) {
        let (name, before_step, stopped) = (job.name(), self.before_step.clone(), stop.clone());
        // A job is used by one task at a time; the lock makes clones possible from any thread.
        let job = std::sync::Mutex::new(job);
        supervisor.keep(name, stop.clone(), move || {
            let job = job.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let (before_step, stopped) = (before_step.clone(), stopped.clone());
            async move { job::repeat(job, stopped, &*before_step.0).await }
        });
    }
}

impl Default for BeforeStep {
    fn default() -> Self {
        Self(Arc::new(|_| {}))
    }
}

impl std::fmt::Debug for BeforeStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeStep")
    }
}
