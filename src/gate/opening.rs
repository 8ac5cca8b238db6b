//! Opens a partition: at the first start, and as the only recovery after Redis lost data.
//!
//! g is the generation in Postgres.
//!
//! First the gate makes sure that no other gate serves from another Redis (`one_redis`).
//!
//! 0. Postgres: mark the row as *opening*, where generation = g. From here on every flusher's compare-and-swap fails.
//! 1. Redis: close, that is, delete the fence if it is still the one read before step 0. From here on every operation
//!    is STALE.
//! 2. Read every stream of the partition to its end, in parts.
//! 3. Postgres, for each part, only where generation = g and opening: insert the missing events, and add only those to
//!    the totals.
//! 4. Redis: open, only if the fence is still absent and each stream still ends in the entry that was drained.
//! 5. Postgres, only where generation = g and opening: the new generation, with the watermark at its genesis entry.
//!
//! An opening is a separate task: it continues when a caller stops waiting, and what was drained stays drained, however
//! much there is to drain.
//!
//! Each step may be repeated, interleaved with another opener's, or run late by a process that slept. The conditions
//! make that safe; the claim of the row only saves work. A condition that does not hold ends the attempt; a caller that
//! still gets STALE begins again. ARCHITECTURE.md explains each condition.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use uuid::Uuid;

use crate::gate::{
    Gate, GateError, Inner, newer_journal,
    one_redis::{DISAGREEMENT_MAX, Place},
    opening_pauses::OpeningPauses,
};
use crate::{
    domain::{
        journal::{Entry, Watermark},
        partition::{Partition, Partitions},
    },
    store::{
        postgres::{DrainReport, PostgresError},
        redis::{Fence, RedisError},
    },
};

/// Time for which an opener claims a partition. Then others take over. The opener renews the claim with each part of
/// the drain, which takes far less time.
const CLAIM: Duration = Duration::from_secs(2);
/// Partitions that one process opens concurrently. Each opening uses connections to Postgres that requests need too.
const OPENINGS_MAX: usize = 8;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Time limit for one step, or one part of a drain. A store that hangs does not end the step.
const STEP_MAX: Duration = Duration::from_secs(15);
/// Time limit for attempts whose conditions did not hold. A caller that still gets STALE begins again.
const ATTEMPTS_MAX: Duration = Duration::from_secs(30);
/// Time limit when a gate starts, which can do nothing but wait.
const START_MAX: Duration = Duration::from_hours(1);
/// Time for which a gate that cannot read a partition's journal leaves its opening to newer gates.
const LEFT_TO_NEWER: Duration = Duration::from_secs(2);
/// How long callers get the same answer after an opening was refused because of another Redis, without a query.
const REFUSAL_KEPT: Duration = Duration::from_millis(500);

/// Result of an opening and its end; none while it is running.
type OpeningOutcome = Option<(Instant, Result<(), GateError>)>;

/// The running openings: one per partition at a time in this process.
#[derive(Debug)]
pub(in crate::gate) struct Openings {
    by_partition: Box<[Mutex<watch::Receiver<OpeningOutcome>>]>,
    places: Semaphore,
    pauses: OpeningPauses,
}

/// Why a generation is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gate) enum Cause {
    /// An operation was STALE. Perhaps only its connection was outdated.
    Stale,
    /// A flusher did not find its anchor, or found a stalled opening.
    Lost,
}

enum AttemptError {
    /// A condition did not hold: another opener is working on it.
    Overtaken,
    /// The journal has an entry of this format, which only a gate of a newer version can drain.
    Newer(u8),
    Failed(GateError),
}

impl Openings {
    pub(in crate::gate) fn new(partitions: Partitions) -> Self {
        let opened = || Some((Instant::now(), Ok(())));
        let by_partition = partitions.all().map(|_| Mutex::new(watch::channel(opened()).1)).collect();
        Self { by_partition, places: Semaphore::new(OPENINGS_MAX), pauses: OpeningPauses::new(partitions) }
    }

    /// Returns the running opening, the one that was just refused, or the one that `begin` starts.
    fn join(
        &self,
        partition: Partition,
        begin: impl FnOnce() -> watch::Receiver<OpeningOutcome>,
    ) -> watch::Receiver<OpeningOutcome> {
        let mut under_way = self.by_partition[partition.index()].lock().unwrap_or_else(PoisonError::into_inner);
        let has_ended = match &*under_way.borrow() {
            Some((at, Err(GateError::OtherRedis { .. }))) => at.elapsed() > REFUSAL_KEPT,
            Some(_) => true,
            // The task may have panicked.
            None => under_way.has_changed().is_err(),
        };
        if has_ended {
            *under_way = begin();
        }
        under_way.clone()
    }
}

impl Openings {
    /// Waits until this process may open one more partition.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.places.acquire().await.ok()
    }
}

impl Gate {
    /// Replaces the generation `left` by a later one, because Redis has lost its data, or its opening has stalled.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Redis or Postgres is unavailable, or the partition is not open in time.
    pub async fn leave_generation(&self, partition: Partition, left: u32) -> Result<(), GateError> {
        let deadline = Instant::now() + self.0.deadline;
        self.0.leave(partition, left, Cause::Lost, deadline).await
    }
}

impl Inner {
    /// Learns the partition's generation, and opens one if none is open.
    pub(in crate::gate) async fn learn_generation(self: &Arc<Self>, partition: Partition) -> Result<u32, GateError> {
        let watermark = self.postgres.watermark(partition.number()).await?;
        self.generations.learn(partition, watermark.generation, Some(watermark.answers_since));
        let place = self.place(partition, watermark).await?;
        if let Some(fence) = place.unrecorded_fence() {
            self.postgres.note_fence(partition.number(), watermark.generation, &fence.to_string()).await?;
        }
        if watermark.position.is_none() || !place.is_open() {
            self.leave(partition, watermark.generation, Cause::Lost, Instant::now() + START_MAX).await?;
        }
        Ok(self.generations.get(partition))
    }

    /// Replaces `generation` after an operation was STALE in it, unless only the connection was outdated.
    pub(in crate::gate) async fn recover_from_stale(
        self: &Arc<Self>,
        partition: Partition,
        generation: u32,
        deadline: Instant,
    ) -> Result<(), GateError> {
        if self.generations.get(partition) > generation {
            return Ok(());
        }
        self.leave(partition, generation, Cause::Stale, deadline).await
    }

    /// Waits for the running opening, or starts one.
    pub(in crate::gate) async fn leave(
        self: &Arc<Self>,
        partition: Partition,
        left: u32,
        cause: Cause,
        deadline: Instant,
    ) -> Result<(), GateError> {
        let mut outcome = self.openings.join(partition, || {
            let (sender, receiver) = watch::channel(None);
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                let outcome = inner.open_later_than(partition, left, cause).await;
                sender.send_replace(Some((Instant::now(), outcome)));
            });
            receiver
        });
        let ended = timeout_at(deadline, outcome.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(ended)) => ended.clone().map_or(Ok(()), |(_, outcome)| outcome),
            Ok(Err(_)) | Err(_) => Err(being_opened(partition)),
        }
    }

    /// Changes to a generation later than `left`: one that another gate has opened, or a new one. Trusts Postgres, not
    /// this gate's memory: a restored Postgres may be behind it.
    async fn open_later_than(self: &Arc<Self>, partition: Partition, left: u32, cause: Cause) -> Result<(), GateError> {
        let number = partition.number();
        let began = Instant::now();
        let mut pause = RETRY_PAUSE_MIN;
        let claim = Uuid::new_v4();
        let mut has_paused = false;
        let mut left_until = None;
        loop {
            let watermark = step(self.postgres.watermark(number)).await?;
            let generation = watermark.generation;
            let there = timeout(STEP_MAX, self.place(partition, watermark)).await.map_err(|_| GateError::slow())??;
            if watermark.position.is_some() && is_later(generation, left, cause, &there) {
                if let Some(fence) = there.unrecorded_fence() {
                    step(self.postgres.note_fence(number, generation, &fence.to_string())).await?;
                }
                self.restore_levels(partition, generation).await?;
                self.generations.learn(partition, generation, Some(watermark.answers_since));
                self.newer_journal.note(partition, None);
                step(self.readmit(there.server())).await?;
                return Ok(());
            }
            if let Some(objection) = self.objection(partition, watermark, &there).await? {
                if self.one_redis.is_refused() || began.elapsed() > DISAGREEMENT_MAX {
                    self.one_redis.refuse(&objection);
                    return Err(objection);
                }
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
                continue;
            }
            if !has_paused && let Some(pause) = self.openings.pauses.before_another(partition) {
                has_paused = true;
                sleep(pause).await;
                continue;
            }
            let place = self.openings.place().await;
            let is_left = left_until.is_some_and(|until| Instant::now() < until);
            if !is_left && step(self.postgres.claim_opening(number, claim, CLAIM.as_secs_f64())).await? {
                let attempt = self.open(partition, &there, watermark, claim).await;
                if let Err(error) = step(self.postgres.release_opening(number, claim)).await {
                    tracing::debug!(%error, %partition, "the claim of an opening was not released; it ends by its time");
                }
                match attempt {
                    Ok(opened) => {
                        self.openings.pauses.opened(partition);
                        // Postgres knows since when the answers are complete; the first message with a key asks it.
                        self.generations.learn(partition, opened, None);
                        self.newer_journal.note(partition, None);
                        step(self.readmit(there.server())).await?;
                        return Ok(());
                    }
                    Err(AttemptError::Failed(error)) => return Err(error),
                    Err(AttemptError::Newer(format)) => {
                        self.newer_journal.note(partition, Some(format));
                        left_until = Some(Instant::now() + LEFT_TO_NEWER);
                    }
                    Err(AttemptError::Overtaken) => {}
                }
            }
            drop(place);
            if began.elapsed() > ATTEMPTS_MAX {
                let newer = self.newer_journal.get(partition).filter(|_| left_until.is_some());
                return Err(newer.map_or_else(|| being_opened(partition), |format| left_to_newer(partition, format)));
            }
            // Give the other opener time.
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Makes one attempt at the six steps.
    async fn open(
        &self,
        partition: Partition,
        there: &Place,
        watermark: Watermark,
        claim: Uuid,
    ) -> Result<u32, AttemptError> {
        let (number, generation) = (partition.number(), watermark.generation);
        // A primary that has lost its replicas may not write. A gate that is still connected to it must not take the
        // partition from gates that are connected to its successor.
        self.redis.try_write(partition).await?;
        // Once Postgres names this Redis, gates with another one must find a gate that is connected to it.
        step(self.note_heartbeat(Some(there.server()))).await?;
        // Read before the row is marked: then an opener that sleeps in between closes nothing that another has opened.
        let fence = self.redis.fence(partition).await?;
        let began = step(self.postgres.begin_opening(number, generation, self.now())).await?;
        let anchor = began.ok_or(AttemptError::Overtaken)?;
        overtaken_unless(self.redis.close(partition, fence.as_ref()).await?)?;
        let also: Vec<u32> = fence.iter().map(Fence::generation).chain([generation]).collect();
        // Read after the row is marked: a change of the levels waits for the openings that may not have read it.
        let levels = step(self.postgres.all_levels()).await?;
        let mut report = DrainReport::default();
        // If the anchor is there, Redis has each answer that Postgres could know: both were written in one step.
        let mut draining = self.redis.drain(partition, &also, Some(anchor)).await?;
        while let Some(entries) = draining.next().await? {
            // Another opener may have taken over after a pause. The conditions below decide which of the two continues.
            step(self.postgres.claim_opening(number, claim, CLAIM.as_secs_f64())).await?;
            // Up to the watermark, a newer gate has flushed what this one cannot read.
            let flushed = watermark.position.filter(|_| draining.generation() == generation);
            let mut waiting = entries.iter().filter(|entry| flushed.is_none_or(|flushed| entry.id > flushed.id));
            if let Some(format) = waiting.find_map(Entry::newer_format) {
                return Err(AttemptError::Newer(format));
            }
            let written = self.postgres.drain(number, generation, &entries, &levels, self.calendar, self.now());
            report += step(written).await?.ok_or(AttemptError::Overtaken)?;
        }
        let drained = draining.ended().ok_or(AttemptError::Overtaken)?;
        let opened = drained.generation_max + 1;
        let fence = self.redis.open(partition, opened, &drained, &levels).await?.ok_or(AttemptError::Overtaken)?;
        let fence = fence.to_string();
        let answers_kept = drained.anchor_found || generation == 0;
        let finished = self.postgres.finish_opening(number, generation, (opened, &fence, answers_kept), self.now());
        overtaken_unless(step(finished).await?)?;
        metrics::counter!("quota_gate_generations_opened_total").increment(1);
        tracing::info!(%partition, generation = opened, previous = generation, events = report.events,
            inserted = report.inserted, answers_kept, "opened a partition");
        Ok(opened)
    }
}

/// Whether the generation, which is open, is the one to change to.
fn is_later(generation: u32, left: u32, cause: Cause, place: &Place) -> bool {
    match cause {
        // Perhaps only the connection was outdated.
        Cause::Stale if generation == left => place.is_open(),
        Cause::Stale | Cause::Lost => generation > left && place.is_home(),
    }
}

fn being_opened(partition: Partition) -> GateError {
    GateError::unavailable(format!("partition {partition} is being opened"))
}

fn left_to_newer(partition: Partition, format: u8) -> GateError {
    GateError::unavailable(format!("partition {partition} cannot be opened: {}", newer_journal::reason(format)))
}

async fn step<T>(asking: impl Future<Output = Result<T, PostgresError>>) -> Result<T, GateError> {
    Ok(timeout(STEP_MAX, asking).await.map_err(|_| GateError::slow())??)
}

const fn overtaken_unless(holds: bool) -> Result<(), AttemptError> {
    if holds { Ok(()) } else { Err(AttemptError::Overtaken) }
}

impl From<GateError> for AttemptError {
    fn from(error: GateError) -> Self {
        Self::Failed(error)
    }
}

impl From<RedisError> for AttemptError {
    fn from(error: RedisError) -> Self {
        Self::Failed(error.into())
    }
}
