//! The flusher: carries usage events from Redis to Postgres, each exactly once.
//!
//! One step for one partition:
//! 1. read the watermark, then the stream from it on, the watermark's own entry included: the *anchor*. If it is not
//!    there with the event that was recorded, Redis has lost data, and the partition is opened anew. An opening that somebody has
//!    begun is waited for, and taken over where it stands still: nobody else may notice, for the fence may still be there;
//! 2. one Postgres transaction: move the watermark by compare-and-swap, write the rows, add to the totals;
//! 3. trim the stream up to the watermark before, so that the anchor stays.
//!
//! There are no acknowledgements and no consumer groups: the watermark is the proof that nothing counts twice. Any number
//! of flushers may run; all but one lose the compare-and-swap. A commit whose answer was lost needs no care: the
//! next step reads the watermark and sees.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    domain::{
        calendar::Calendar,
        clock::Clock,
        journal::{Entry, Position, StreamId, Watermark},
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

/// Longest time for one step. A Postgres that hangs does not end it by itself, and a step may be repeated in any case.
const STEP_MAX: Duration = Duration::from_secs(20);

/// Entries of one read: at most some 30,000 events, and hardly ever.
const READ_ENTRIES: usize = 256;

/// Partitions that a flusher which is behind works on at a time: each needs a connection to Postgres.
const ALL_AT_ONCE: usize = 8;

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
    /// A step takes no further entries once it has so many events.
    pub batch_events_max: usize,
    /// A usage stream that is longer than this is an alarm: at twice the length new work is refused.
    pub stream_entries_alarm: u64,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlushStep {
    /// There was nothing to do.
    Idle,
    /// These events are in Postgres now.
    Flushed {
        /// How many.
        events: u64,
        /// The step had its fill: there are probably more.
        more: bool,
    },
    /// Another flusher, or an opening, was faster.
    Superseded,
    /// Redis had lost data, or somebody was opening the partition: it is open anew.
    Reopened,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// Something was flushed or opened.
    busy: bool,
    /// A step had its fill.
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
    /// A store hangs.
    #[error("a step took longer than {0:?}")]
    Slow(Duration),
    /// The partition could not be opened.
    #[error("opening the partition: {0}")]
    Opening(#[from] GateError),
}

impl Round {
    fn and(self, step: &FlushStep) -> Self {
        match step {
            FlushStep::Idle | FlushStep::Superseded => self,
            FlushStep::Flushed { more, .. } => Self { busy: true, more: self.more || *more },
            FlushStep::Reopened => Self { busy: true, ..self },
        }
    }
}

impl Flusher {
    /// Runs until cancelled, then flushes what is left. Between two rounds it pauses, so that a transaction carries
    /// what has gathered meanwhile. While it keeps up it takes one partition after the other, so that decisions hardly notice;
    /// once it is behind it takes all at once, and does not pause.
    pub async fn run(self, interval: Duration, cancelled: CancellationToken) {
        let (mut pause, mut at_once) = (interval, 1);
        while !cancelled.is_cancelled() {
            let round = self.round(at_once).await;
            self.watch_streams().await;
            at_once = 1;
            pause = match round {
                Ok(Round { more: true, .. }) => {
                    at_once = ALL_AT_ONCE;
                    continue;
                }
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
        if let Err(error) = self.flush_what_is_there().await {
            tracing::warn!(%error, "the last flush failed; the events stay in Redis for the next gate");
        }
    }

    /// Tells how long the streams are, also when Postgres is away: that is when they grow.
    async fn watch_streams(&self) {
        for partition in self.gate.partitions().all() {
            let generation = self.gate.generation(partition);
            let Ok(entries) = self.redis.stream_length(partition, generation).await else { return };
            let label = partition.to_string();
            #[expect(clippy::cast_precision_loss, reason = "a metric needs no more")]
            metrics::gauge!("quota_gate_stream_entries", "partition" => label).set(entries as f64);
            if entries > self.stream_entries_alarm {
                tracing::error!(%partition, entries, alarm = self.stream_entries_alarm,
                    "the usage stream is long: is Postgres away? At twice the length new messages are refused");
            }
        }
    }

    /// Flushes what was charged before this was called. Other gates go on charging, so there may be no end to what comes.
    async fn flush_what_is_there(&self) -> Result<(), FlushError> {
        while self.round(ALL_AT_ONCE).await?.more {}
        Ok(())
    }

    /// Flushes until nothing is left.
    ///
    /// # Errors
    /// If Redis or Postgres is away; what was flushed by then stays flushed.
    pub async fn flush_all(&self) -> Result<(), FlushError> {
        while self.round(ALL_AT_ONCE).await?.busy {}
        Ok(())
    }

    /// One step for each partition, `at_once` of them at a time: their users, streams and watermarks have nothing in
    /// common. Other partitions' steps go on when one fails; it begins again in the next round.
    async fn round(&self, at_once: usize) -> Result<Round, FlushError> {
        let levels = self.postgres.all_levels().await?;
        let watermarks = self.postgres.watermarks().await?;
        let step = async |(partition, watermark)| {
            let span = tracing::debug_span!("flush", %partition);
            timeout(STEP_MAX, self.step_from(watermark, partition, &levels).instrument(span))
                .await
                .unwrap_or(Err(FlushError::Slow(STEP_MAX)))
        };
        let steps = stream::iter(self.gate.partitions().all().zip(watermarks)).map(step).buffer_unordered(at_once);
        steps
            .fold(Ok(Round::default()), async |outcome: Result<Round, FlushError>, step| match step {
                Ok(step) => outcome.map(|round| round.and(&step)),
                Err(error) => Err(error),
            })
            .await
    }

    /// One step for one partition.
    ///
    /// # Errors
    /// If Redis or Postgres is away. The step may be repeated in any case.
    pub async fn step(&self, partition: Partition, levels: &Levels) -> Result<FlushStep, FlushError> {
        let watermark = self.postgres.watermark(partition.number()).await?;
        self.step_from(watermark, partition, levels).await
    }

    async fn step_from(
        &self,
        watermark: Watermark,
        partition: Partition,
        levels: &Levels,
    ) -> Result<FlushStep, FlushError> {
        let generation = watermark.generation;
        let Some(from) = watermark.position else {
            self.gate.leave_generation(partition, generation).await?;
            return Ok(FlushStep::Reopened);
        };
        let (entries, more) = self.read(partition, generation, from.id).await?;
        let new = match entries.split_first() {
            Some((anchor, new)) if anchor.position() == from => new,
            _ if self.postgres.watermark(partition.number()).await? != watermark => return Ok(FlushStep::Superseded),
            _ => return self.reopen(partition, generation, from).await,
        };
        let Some(last) = new.last() else { return Ok(FlushStep::Idle) };

        let flush = Flush {
            partition: partition.number(),
            generation,
            from,
            entries: new,
            levels,
            calendar: self.calendar,
            now: self.clock.now(),
        };
        let FlushOutcome::Committed(report) = self.postgres.flush(flush).await? else {
            return Ok(FlushStep::Superseded);
        };
        metrics::counter!("quota_gate_flushed_events_total").increment(report.rows);
        metrics::counter!("quota_gate_dead_letters_total").increment(report.dead_letters);
        if report.dead_letters > 0 {
            tracing::error!(%partition, dead_letters = report.dead_letters,
                "Postgres refused usage events; they are in the table dead_letters");
        }
        self.redis.trim(partition, generation, last.position(), from.id).await?;
        let events = new.iter().map(|entry: &Entry| entry.events().len() as u64).sum();
        Ok(FlushStep::Flushed { events, more })
    }

    /// The entry at `from` and what follows it, until there are events enough; and whether there is more.
    async fn read(
        &self,
        partition: Partition,
        generation: u32,
        from: StreamId,
    ) -> Result<(Vec<Entry>, bool), RedisError> {
        let mut entries = self.redis.read_stream(partition, generation, from, READ_ENTRIES).await?;
        let mut read = entries.len();
        let events = |entries: &[Entry]| entries.iter().map(|entry| entry.events().len()).sum::<usize>();
        while read == READ_ENTRIES && events(&entries) < self.batch_events_max {
            let Some(last) = entries.last().map(Entry::position) else { break };
            let next = self.redis.read_stream(partition, generation, last.id, READ_ENTRIES).await?;
            // Another flusher has trimmed it meanwhile: what follows would leave a gap.
            if next.first().map(Entry::position) != Some(last) {
                break;
            }
            read = next.len();
            entries.extend(next.into_iter().skip(1));
        }
        Ok((entries, read == READ_ENTRIES))
    }

    async fn reopen(&self, partition: Partition, generation: u32, anchor: Position) -> Result<FlushStep, FlushError> {
        tracing::error!(%partition, generation, anchor = %anchor.id,
            "the last flushed entry is not in Redis any more: Redis has lost data, the partition is opened anew");
        self.gate.leave_generation(partition, generation).await?;
        Ok(FlushStep::Reopened)
    }
}
