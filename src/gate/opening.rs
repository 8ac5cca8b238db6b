//! Opening a partition: the first start, and the one way back after Redis lost data.
//!
//! g is the generation in Postgres.
//!
//! 0. Postgres: mark the row *opening*, where generation = g. From here every flusher's compare-and-swap fails.
//! 1. Redis: close, that is delete the fence if it is still the one that was seen. From here every operation is STALE.
//! 2. Read every stream of the partition whole.
//! 3. Postgres, only where generation = g and opening: the events that are not there yet, and the totals of just those.
//! 4. Redis: open, only if the fence is still absent and each stream still ends in the entry that was drained.
//! 5. Postgres, only where generation = g and opening: the new generation, with the watermark at its genesis entry.
//!
//! Each step may be repeated, interleaved with another opener's, or taken late by a process that slept: the
//! conditions make that safe, not the advisory lock, which only saves work. A condition that does not hold ends the
//! attempt; whoever still meets STALE begins again. ARCHITECTURE.md tells what each condition is for.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::{Gate, GateError, Inner};
use crate::{
    domain::{
        journal::Watermark,
        partition::{Partition, Partitions},
    },
    store::redis::Fence,
};

/// How long to wait for another opener before taking over: many times what an opening takes.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// One opening of a partition at a time in this process.
#[derive(Debug)]
pub(super) struct Openings(Box<[Mutex<Option<Elsewhere>>]>);

/// Another process is leaving this generation of the partition, as far as its lock can tell.
#[derive(Debug, Clone, Copy)]
struct Elsewhere {
    generation: u32,
    /// When that was first seen, in whichever request.
    since: Instant,
}

impl Openings {
    pub(super) fn new(partitions: Partitions) -> Self {
        Self(partitions.all().map(|_| Mutex::new(None)).collect())
    }
}

impl Gate {
    /// Goes on to a later generation than `left`, because Redis has lost data of that one.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Redis or Postgres is away, or the partition is not open in time.
    pub async fn leave_generation(&self, partition: Partition, left: u32) -> Result<(), GateError> {
        self.0.leave_generation(partition, left).await
    }
}

impl Inner {
    /// Finds the partition's generation, and opens one if there is none.
    pub(super) async fn learn_generation(&self, partition: Partition) -> Result<u32, GateError> {
        let watermark = self.postgres.watermark(partition.number()).await?;
        self.batcher.generations().learn(partition, watermark.generation);
        if !self.is_open(partition, watermark).await? {
            self.leave_generation(partition, watermark.generation).await?;
        }
        Ok(self.batcher.generations().get(partition))
    }

    /// After an operation was STALE in `generation`: goes on to a later one, unless only the connection was outdated.
    pub(super) async fn meet_stale(&self, partition: Partition, generation: u32) -> Result<(), GateError> {
        let deadline = Instant::now() + self.deadline;
        let mut elsewhere = self.openings.0[partition.index()].lock().await;
        if self.batcher.generations().get(partition) > generation {
            return Ok(());
        }
        let watermark = self.postgres.watermark(partition.number()).await?;
        if watermark.generation == generation && self.is_open(partition, watermark).await? {
            return Ok(());
        }
        self.open_later_than(partition, generation, &mut elsewhere, deadline).await
    }

    /// Whether Postgres and this very Redis agree that the generation is open.
    async fn is_open(&self, partition: Partition, watermark: Watermark) -> Result<bool, GateError> {
        let open = Fence::new(watermark.generation, &self.redis.server_id().await?);
        Ok(watermark.position.is_some() && self.redis.fence(partition).await? == Some(open))
    }

    /// After a flusher missed its anchor in `left`, or met an opening of it that stands still.
    pub(super) async fn leave_generation(&self, partition: Partition, left: u32) -> Result<(), GateError> {
        let deadline = Instant::now() + self.deadline;
        let mut elsewhere = self.openings.0[partition.index()].lock().await;
        self.open_later_than(partition, left, &mut elsewhere, deadline).await
    }

    /// Goes on to a later generation than `left`, in which an operation was STALE or a flusher missed its anchor:
    /// one that another gate has opened, or a new one. Asks until there is one, or the deadline is over. Believes
    /// Postgres, not what this gate knew: a Postgres that was restored may be behind it.
    async fn open_later_than(
        &self,
        partition: Partition,
        left: u32,
        elsewhere: &mut Option<Elsewhere>,
        deadline: Instant,
    ) -> Result<(), GateError> {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let watermark = self.postgres.watermark(partition.number()).await?;
            let generation = watermark.generation;
            if watermark.position.is_some() && generation > left {
                self.batcher.generations().learn(partition, generation);
                return Ok(());
            }
            let known = elsewhere.filter(|elsewhere| elsewhere.generation == generation);
            let take_over = known.is_some_and(|elsewhere| elsewhere.since.elapsed() >= TAKE_OVER_AFTER);
            let lock = self.postgres.try_lock_partition(partition.number()).await?;
            if lock.is_some() || take_over {
                if let Some(opened) = self.open(partition, generation).await? {
                    self.batcher.generations().learn(partition, opened);
                    return Ok(());
                }
            } else if known.is_none() {
                *elsewhere = Some(Elsewhere { generation, since: Instant::now() });
            }
            drop(lock);
            if Instant::now() > deadline {
                let reason = format!("partition {partition} is being opened");
                return Err(GateError::Unavailable { reason, retry_after: Duration::from_secs(1) });
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// One attempt at the six steps. None when a condition did not hold: somebody else is at it.
    async fn open(&self, partition: Partition, generation: u32) -> Result<Option<u32>, GateError> {
        let number = partition.number();
        // Whoever talks to a primary that has lost its replicas, and may not write, must not take the partition away from
        // those who talk to its successor.
        self.redis.try_write(partition).await?;
        if !self.postgres.begin_opening(number, generation, self.now()).await? {
            return Ok(None);
        }
        let fence = self.redis.fence(partition).await?;
        if !self.redis.close(partition, fence.as_ref()).await? {
            return Ok(None);
        }
        let also: Vec<u32> = fence.iter().map(Fence::generation).chain([generation]).collect();
        let drained = self.redis.drain(partition, &also).await?;
        let levels = self.postgres.all_levels().await?;
        let Some(report) =
            self.postgres.drain(number, generation, &drained.entries, &levels, self.calendar, self.now()).await?
        else {
            return Ok(None);
        };
        let opened = drained.generation_max + 1;
        if !self.redis.open(partition, opened, &drained).await? {
            return Ok(None);
        }
        if !self.postgres.finish_opening(number, generation, opened, self.now()).await? {
            return Ok(None);
        }
        metrics::counter!("quota_gate_generations_opened_total").increment(1);
        tracing::info!(%partition, generation = opened, previous = generation, events = report.events,
            inserted = report.inserted, "opened a partition");
        Ok(Some(opened))
    }
}
