//! The flusher: carries usage events from Redis to Postgres, each exactly once.
//!
//! One step for one partition:
//! 1. read the watermark, then the stream from it on, the watermark's own entry included: the *anchor*. If it is not
//!    there with the event that was recorded, Redis has lost data, and the partition is opened anew;
//! 2. one Postgres transaction: move the watermark by compare-and-swap, write the rows, add to the totals;
//! 3. trim the stream up to the watermark before, so that the anchor stays.
//!
//! There are no acknowledgements and no consumer groups: the watermark is the proof that nothing counts twice. Any number
//! of flushers may run; all but one lose the compare-and-swap. A commit whose answer was lost needs no care: the
//! next step reads the watermark and sees.

use std::time::Duration;

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        calendar::Calendar,
        clock::Clock,
        journal::{Entry, Position, Watermark},
        level::Levels,
        partition::Partition,
    },
    gate::{Gate, GateError},
    store::{
        postgres::{Flush, FlushOutcome, Postgres, PostgresError},
        redis::{Redis, RedisError},
    },
};

/// Longest pause after a failed round. Postgres is asked at least this often whether it is back.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Carries usage events to Postgres.
#[derive(Debug, Clone)]
pub struct Flusher {
    /// Opens a partition when Redis has lost data.
    pub gate: Gate,
    /// Where the events are.
    pub redis: Redis,
    /// Where they go.
    pub postgres: Postgres,
    /// Months, for events of another period than the row's.
    pub calendar: Calendar,
    /// Stamps the rows' updates.
    pub clock: Clock,
    /// Most stream entries of one step.
    pub batch_entries_max: usize,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// These events are in Postgres now.
    Flushed {
        /// How many.
        events: u64,
        /// The step took as many entries as it may: there are probably more.
        more: bool,
    },
    /// Another flusher, or an opening, was faster.
    Superseded,
    /// Redis had lost data: the partition was opened anew.
    Reopened,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// Something was flushed or opened.
    busy: bool,
    /// A step took as many entries as it may.
    more: bool,
}

/// Why a step failed. Nothing is lost: the next one begins where the watermark is.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The stream could not be read.
    #[error("reading the usage stream: {0}")]
    Redis(#[from] RedisError),
    /// The rows could not be written.
    #[error("writing usage to Postgres: {0}")]
    Postgres(#[from] PostgresError),
    /// The partition could not be opened.
    #[error("opening the partition: {0}")]
    Opening(#[from] GateError),
}

impl Flusher {
    /// Runs until cancelled, then flushes what is left. Between two rounds it pauses, so that a transaction carries
    /// what has gathered meanwhile; after one that could not take everything it does not.
    pub async fn run(self, interval: Duration, cancelled: CancellationToken) {
        let mut pause = interval;
        while !cancelled.is_cancelled() {
            pause = match self.round().await {
                Ok(Round { more: true, .. }) => continue,
                Ok(Round { more: false, .. }) => interval,
                Err(error) => {
                    metrics::counter!("quota_gate_flush_failures_total").increment(1);
                    tracing::warn!(%error, "a flush failed; it begins again where it stopped");
                    (pause * 2).min(RETRY_PAUSE_MAX)
                }
            };
            select! {
                () = sleep(pause) => {}
                () = cancelled.cancelled() => {}
            }
        }
        if let Err(error) = self.flush_all().await {
            tracing::warn!(%error, "the last flush failed; the events stay in Redis for the next gate");
        }
    }

    /// Flushes until nothing is left.
    ///
    /// # Errors
    /// If Redis or Postgres is away; what was flushed by then stays flushed.
    pub async fn flush_all(&self) -> Result<(), FlushError> {
        while self.round().await?.busy {}
        Ok(())
    }

    /// One step for each partition.
    async fn round(&self) -> Result<Round, FlushError> {
        let levels = self.postgres.all_levels().await?;
        let watermarks = self.postgres.watermarks().await?;
        let mut round = Round::default();
        for (partition, watermark) in self.gate.partitions().all().zip(watermarks) {
            match self.step_from(watermark, partition, &levels).await? {
                Step::Idle | Step::Superseded => {}
                Step::Flushed { more, .. } => round = Round { busy: true, more: round.more || more },
                Step::Reopened => round.busy = true,
            }
        }
        Ok(round)
    }

    /// One step for one partition.
    ///
    /// # Errors
    /// If Redis or Postgres is away. The step may be repeated in any case.
    pub async fn step(&self, partition: Partition, levels: &Levels) -> Result<Step, FlushError> {
        let watermark = self.postgres.watermark(partition.number()).await?;
        self.step_from(watermark, partition, levels).await
    }

    async fn step_from(&self, watermark: Watermark, partition: Partition, levels: &Levels) -> Result<Step, FlushError> {
        let Some(from) = watermark.position else { return Ok(Step::Superseded) };
        let generation = watermark.generation;

        let entries = self.redis.read_stream(partition, generation, from.id, self.batch_entries_max + 1).await?;
        let new = match entries.split_first() {
            Some((anchor, new)) if anchor.position() == from => new,
            _ if self.postgres.watermark(partition.number()).await? != watermark => return Ok(Step::Superseded),
            _ => return self.reopen(partition, generation, from).await,
        };
        let Some(last) = new.last() else { return Ok(Step::Idle) };

        let flush = Flush {
            partition: partition.number(),
            generation,
            from,
            entries: new,
            levels,
            calendar: self.calendar,
            now: self.clock.now(),
        };
        let FlushOutcome::Committed(report) = self.postgres.flush(flush).await? else { return Ok(Step::Superseded) };
        metrics::counter!("quota_gate_flushed_events_total").increment(report.rows);
        metrics::counter!("quota_gate_dead_letters_total").increment(report.dead_letters);
        if report.dead_letters > 0 {
            tracing::error!(%partition, dead_letters = report.dead_letters,
                "Postgres refused usage events; they are in the table dead_letters");
        }
        self.redis.trim(partition, generation, last.position(), from.id).await?;
        let events = new.iter().map(|entry: &Entry| entry.events().len() as u64).sum();
        Ok(Step::Flushed { events, more: new.len() >= self.batch_entries_max })
    }

    async fn reopen(&self, partition: Partition, generation: u32, anchor: Position) -> Result<Step, FlushError> {
        tracing::error!(%partition, generation, anchor = %anchor.id,
            "the last flushed entry is not in Redis any more: Redis has lost data, the partition is opened anew");
        self.gate.leave_generation(partition, generation).await?;
        Ok(Step::Reopened)
    }
}
