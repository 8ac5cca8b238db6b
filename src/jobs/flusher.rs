//! The flusher: writes usage events from Redis to Postgres, each exactly once.
//!
//! One step for one partition:
//! 1. Read the watermark, then the stream from it on, including the watermark's own entry, the *anchor*. If the anchor
//!    with the recorded event is missing, Redis has lost data, and the partition is reopened. If an opening is running,
//!    wait for it; if it makes no progress, take it over: while the fence exists, only the flusher notices.
//! 2. In one Postgres transaction, move the watermark by compare-and-swap, write the rows, add to the totals.
//!    An entry of a format that this gate does not know ends the batch: a gate of a newer version flushes it.
//! 3. Trim the stream up to the previous watermark, so that the anchor stays.
//!
//! There are no acknowledgements and no consumer groups: the watermark proves that nothing counts twice. Any number of
//! flushers may run; all but one lose the compare-and-swap. After a commit whose answer was lost, the next step reads
//! the watermark.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::timeout;
use tracing::Instrument;

use super::job::{Job, Next, Pace, StepError};
use crate::{
    domain::{
        journal::{Entry, Position, StreamId, Watermark},
        level::Levels,
        partition::Partition,
        usage::UsageEvent,
    },
    gate::{Gate, GateError},
    store::{
        postgres::{Flush, FlushOutcome, PostgresError},
        redis::RedisError,
    },
};

/// Longest time for one partition. A Postgres that hangs does not end it, and it may be repeated in any case.
const PARTITION_MAX: Duration = Duration::from_secs(20);
/// Entries of one read: at most some 30,000 events, and rarely that many.
const READ_ENTRIES: usize = 256;
/// Partitions that a flusher which is behind flushes concurrently: each needs a connection to Postgres.
const CONCURRENCY_MAX: usize = 8;

/// Settings of the flusher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlusherOptions {
    /// Pause after a round that flushed everything.
    pub interval: Duration,
    /// A transaction takes no further entries once it has this many events.
    pub batch_events_max: usize,
    /// Memory of a usage stream that is logged as an error. At twice this memory new messages are refused.
    pub stream_bytes_alarm: u64,
}

/// Writes usage events to Postgres.
#[derive(Debug, Clone)]
pub struct Flusher {
    gate: Gate,
    options: FlusherOptions,
    /// Partitions of the next round that are flushed concurrently.
    concurrency: usize,
}

/// Result of flushing one partition once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionFlush {
    /// There was nothing to do.
    Idle,
    /// Events were written to Postgres.
    Flushed {
        /// Number of events.
        events: u64,
        /// Whether the batch was full, so that there are probably more events.
        more: bool,
    },
    /// What follows is in this format, which only a gate of a newer version can read.
    Newer(u8),
    /// Another flusher, or an opening, was faster.
    Superseded,
    /// Redis had lost data, or the partition was being opened: it is open again.
    Reopened,
}

/// Result of a round over all partitions.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// Something was flushed or opened.
    busy: bool,
    /// A batch was full.
    more: bool,
}

/// Why a flush failed. Nothing is lost: the next flush starts at the watermark.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The stream could not be read.
    #[error("reading the usage stream: {0}")]
    Redis(#[from] RedisError),
    /// The rows could not be written.
    #[error("writing usage to Postgres: {0}")]
    Postgres(#[from] PostgresError),
    /// A store hangs.
    #[error("a step took longer than {0:?}")]
    Slow(Duration),
    /// The partition could not be opened.
    #[error("opening the partition: {0}")]
    Opening(#[from] GateError),
}

impl Round {
    fn and(self, step: &PartitionFlush) -> Self {
        match step {
            PartitionFlush::Idle | PartitionFlush::Newer(_) | PartitionFlush::Superseded => self,
            PartitionFlush::Flushed { more, .. } => Self { busy: true, more: self.more || *more },
            PartitionFlush::Reopened => Self { busy: true, ..self },
        }
    }
}

impl Job for Flusher {
    fn name(&self) -> &'static str {
        "flusher"
    }

    fn pace(&self) -> Pace {
        let pause = self.options.interval;
        // The bound is that of each partition; a round may flush them one after the other.
        let step_max = PARTITION_MAX * (u32::from(self.gate.partitions().count()) + 1);
        Pace { pause, retry_pause_max: Duration::from_secs(2), step_max }
    }

    /// Flushes every partition once. Between two rounds events accumulate for the next transaction. A flusher that
    /// keeps up flushes one partition after the other, which hardly slows decisions; one that is behind flushes several
    /// concurrently, without a pause.
    async fn step(&mut self) -> Result<Next, StepError> {
        if let Some(refusal) = self.gate.refusal() {
            return Err(refusal.into());
        }
        let round = self.round(self.concurrency).await;
        self.report_streams().await;
        self.concurrency = 1;
        match round {
            Ok(Round { more: true, .. }) => {
                self.concurrency = CONCURRENCY_MAX;
                Ok(Next::Immediately)
            }
            Ok(Round { more: false, .. }) => Ok(Next::AfterPause),
            Err(error) => {
                metrics::counter!("quota_gate_flush_failures_total").increment(1);
                Err(error.into())
            }
        }
    }

    async fn finish(&mut self) {
        if let Err(error) = self.flush_present().await {
            tracing::warn!(%error, "the last flush failed; the events stay in Redis for the next gate");
        }
    }
}

impl Flusher {
    /// The flusher of this gate.
    #[must_use]
    pub const fn new(gate: Gate, options: FlusherOptions) -> Self {
        Self { gate, options, concurrency: 1 }
    }

    /// Publishes the length and the memory of each stream, also while Postgres is unavailable, because they grow then.
    async fn report_streams(&self) {
        for partition in self.gate.partitions().all() {
            let generation = self.gate.generation(partition);
            let Ok(size) = self.gate.redis().stream_size(partition, generation).await else { return };
            let label = || partition.to_string();
            #[expect(clippy::cast_precision_loss, reason = "a metric needs no more")]
            metrics::gauge!("quota_gate_stream_entries", "partition" => label()).set(size.entries as f64);
            #[expect(clippy::cast_precision_loss, reason = "a metric needs no more")]
            metrics::gauge!("quota_gate_stream_bytes", "partition" => label()).set(size.bytes as f64);
            if size.bytes > self.options.stream_bytes_alarm {
                tracing::error!(%partition, entries = size.entries, bytes = size.bytes,
                    alarm = self.options.stream_bytes_alarm,
                    "the usage stream is large: is Postgres unavailable? At twice the size new messages are refused");
            }
        }
    }

    /// Flushes what was charged before this call. Other gates continue to charge, so waiting for an empty stream might
    /// never end.
    async fn flush_present(&self) -> Result<(), FlushError> {
        while self.round(CONCURRENCY_MAX).await?.more {}
        Ok(())
    }

    /// Flushes until nothing is left.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable. Events that were flushed before stay flushed.
    pub async fn flush_all(&self) -> Result<(), FlushError> {
        while self.round(CONCURRENCY_MAX).await?.busy {}
        Ok(())
    }

    /// Runs one step for each partition, `concurrency` at a time: partitions share no users, streams or watermarks. If
    /// one step fails, the others continue; it is repeated in the next round.
    async fn round(&self, concurrency: usize) -> Result<Round, FlushError> {
        let levels = self.gate.postgres().all_levels().await?;
        let watermarks = self.gate.postgres().watermarks().await?;
        let step = async |(partition, watermark)| {
            let span = tracing::debug_span!("flush", %partition);
            timeout(PARTITION_MAX, self.flush_from(watermark, partition, &levels).instrument(span))
                .await
                .unwrap_or(Err(FlushError::Slow(PARTITION_MAX)))
        };
        let steps = stream::iter(self.gate.partitions().all().zip(watermarks)).map(step).buffer_unordered(concurrency);
        steps
            .fold(Ok(Round::default()), async |outcome: Result<Round, FlushError>, step| match step {
                Ok(step) => outcome.map(|round| round.and(&step)),
                Err(error) => Err(error),
            })
            .await
    }

    /// Flushes one partition once.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable. It may be repeated in any case.
    pub async fn flush_partition(&self, partition: Partition, levels: &Levels) -> Result<PartitionFlush, FlushError> {
        let watermark = self.gate.postgres().watermark(partition.number()).await?;
        self.flush_from(watermark, partition, levels).await
    }

    async fn flush_from(
        &self,
        watermark: Watermark,
        partition: Partition,
        levels: &Levels,
    ) -> Result<PartitionFlush, FlushError> {
        let generation = watermark.generation;
        let Some(from) = watermark.position else {
            // Only a newer gate can open it. Waiting here would delay the other partitions.
            if let Some(format) = self.gate.newer_journal(partition) {
                return Ok(PartitionFlush::Newer(format));
            }
            self.gate.leave_generation(partition, generation).await?;
            return Ok(PartitionFlush::Reopened);
        };
        let (entries, more) = self.read(partition, generation, from.id).await?;
        let new = match entries.split_first() {
            Some((anchor, new)) if anchor.is_at(from) => new,
            _ if self.gate.postgres().watermark(partition.number()).await? != watermark => {
                return Ok(PartitionFlush::Superseded);
            }
            _ => return self.reopen(partition, generation, from).await,
        };
        let newer = new.iter().position(|entry| entry.newer_format().is_some());
        let format = newer.and_then(|at| new[at].newer_format());
        self.gate.note_newer_journal(partition, format);
        let (new, more) = newer.map_or((new, more), |at| (&new[..at], false));
        let Some(last) = new.last() else {
            return Ok(format.map_or(PartitionFlush::Idle, PartitionFlush::Newer));
        };

        // Levels that were added since this round began.
        let is_new = |event: &UsageEvent| levels.coded(event.level).is_none();
        let newer = if new.iter().flat_map(Entry::events).any(is_new) {
            Some(self.gate.postgres().all_levels().await?)
        } else {
            None
        };
        let flush = Flush {
            partition: partition.number(),
            generation,
            from,
            entries: new,
            levels: newer.as_ref().unwrap_or(levels),
            calendar: self.gate.calendar(),
            now: self.gate.now(),
        };
        let FlushOutcome::Committed(report) = self.gate.postgres().flush(flush).await? else {
            return Ok(PartitionFlush::Superseded);
        };
        metrics::counter!("quota_gate_flushed_events_total").increment(report.rows);
        metrics::counter!("quota_gate_dead_letters_total").increment(report.dead_letters);
        if report.dead_letters > 0 {
            tracing::error!(%partition, dead_letters = report.dead_letters,
                "Postgres refused usage events; they are in the table dead_letters");
        }
        self.gate.redis().trim(partition, generation, last.position(), from.id).await?;
        let events = new.iter().map(|entry: &Entry| entry.events().len() as u64).sum();
        Ok(PartitionFlush::Flushed { events, more })
    }

    /// Reads the entry at `from` and the entries after it, until the batch is full. Also returns whether there may
    /// be more.
    async fn read(
        &self,
        partition: Partition,
        generation: u32,
        from: StreamId,
    ) -> Result<(Vec<Entry>, bool), RedisError> {
        let mut entries = self.gate.redis().read_stream(partition, generation, from, READ_ENTRIES).await?;
        let mut read = entries.len();
        let events = |entries: &[Entry]| entries.iter().map(|entry| entry.events().len()).sum::<usize>();
        while read == READ_ENTRIES && events(&entries) < self.options.batch_events_max {
            let Some(last) = entries.last().map(Entry::position) else { break };
            let next = self.gate.redis().read_stream(partition, generation, last.id, READ_ENTRIES).await?;
            // Another flusher has trimmed the stream meanwhile: the entries would leave a gap.
            if next.first().map(Entry::position) != Some(last) {
                break;
            }
            read = next.len();
            entries.extend(next.into_iter().skip(1));
        }
        Ok((entries, read == READ_ENTRIES))
    }

    async fn reopen(
        &self,
        partition: Partition,
        generation: u32,
        anchor: Position,
    ) -> Result<PartitionFlush, FlushError> {
        self.gate.leave_generation(partition, generation).await?;
        tracing::error!(%partition, generation, anchor = %anchor.id,
            "the last flushed entry is not in Redis any more: Redis has lost data, the partition was opened anew");
        Ok(PartitionFlush::Reopened)
    }
}
