//! One Redis at a time: a gate does not serve from a Redis while other gates serve from another one (decision 0019).
//!
//! Postgres names the fence of each generation, and so the Redis process in which it is open. Each gate reports every
//! second to which process it is connected. An opener whose Redis does not have that fence may open only if no gate is
//! connected to that process: then the data is gone, or its gates have stopped. A Redis that has the fence is the same
//! one after a restart, or its replica after a failover, and is opened without a question.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::gate::{Gate, GateError, Inner, opening::Cause};
use crate::{
    domain::{journal::Watermark, partition::Partition},
    store::{
        postgres::{Heartbeat, PostgresError, SeenGate},
        redis::{Fence, ServerId},
    },
};

/// Pause between two heartbeats of a gate.
pub(crate) const HEARTBEAT_PAUSE: Duration = Duration::from_secs(1);
/// Age of a heartbeat that still proves a connection: three heartbeats, of which two may be late or lost. A gate that
/// loses its Redis says so in its next one.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
/// How long an opener waits for other gates to lose the other Redis too. All heartbeats that are older than its first
/// look have ended by then: who is still connected has another Redis.
pub(in crate::gate) const DISAGREEMENT_MAX: Duration = Duration::from_secs(4);
/// Age of a heartbeat after which a gate that did not stop in order counts as gone. A refused gate waits that long: the
/// gates that serve may have lost their Redis or Postgres for a while, and continue with their data.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// This gate among the gates of the installation.
#[derive(Debug)]
pub(in crate::gate) struct OneRedis {
    gate: Uuid,
    address: String,
    refused: Mutex<Option<GateError>>,
    /// When the current row of successful heartbeats began.
    heartbeats_since: Mutex<Option<Instant>>,
    /// The Redis process in the last heartbeat.
    reported: Mutex<Option<String>>,
}

/// A partition's fence in Redis, and the one in Postgres.
#[derive(Debug)]
pub(in crate::gate) struct Place {
    server: ServerId,
    generation: u32,
    found: Option<Fence>,
    /// Fence of the generation in Postgres; none if a gate of an older version has opened it.
    recorded: Option<Fence>,
}

impl OneRedis {
    pub(in crate::gate) fn new(address: String) -> Self {
        Self {
            gate: Uuid::new_v4(),
            address,
            refused: Mutex::default(),
            heartbeats_since: Mutex::default(),
            reported: Mutex::default(),
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<GateError>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heartbeats_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.heartbeats_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reported(&self) -> MutexGuard<'_, Option<String>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heartbeat_ended(&self, succeeded: bool) {
        let mut since = self.heartbeats_since();
        *since = if succeeded { since.or_else(|| Some(Instant::now())) } else { None };
    }

    pub(in crate::gate) fn is_refused(&self) -> bool {
        self.refused().is_some()
    }

    /// Reports, once, that this gate must not serve.
    pub(in crate::gate) fn refuse(&self, error: &GateError) {
        if self.refused().replace(error.clone()).is_none() {
            metrics::gauge!("quota_gate_redis_conflict").set(1);
            tracing::error!(%error, "this gate does not serve: other gates serve from another Redis");
        }
    }

    /// Reports, once, that this gate serves again. Returns whether it did not serve before.
    fn readmit(&self) -> bool {
        let was_refused = self.refused().take().is_some();
        if was_refused {
            metrics::gauge!("quota_gate_redis_conflict").set(0);
            tracing::info!("this gate serves again: no other gate serves from another Redis");
        }
        was_refused
    }

    /// Why this gate's Redis may not open the generation now; none if it may.
    fn objection(&self, place: &Place, seen: &[SeenGate]) -> Option<GateError> {
        if place.descends() {
            return None;
        }
        let refused = self.refused().clone();
        let objects = |other: &&SeenGate| {
            let process = other.redis_process.as_deref();
            let is_connected_there = match place.recorded.as_ref().and_then(Fence::process) {
                Some(recorded) => process == Some(recorded),
                None => process.is_some(),
            };
            let is_recent = other.seconds_ago <= CONNECTED_WITHIN.as_secs_f64();
            other.gate != self.gate
                && !other.is_refused
                && process != Some(place.server.as_str())
                && (refused.is_some() || is_recent && is_connected_there)
        };
        if let Some(other) = seen.iter().find(objects) {
            let (mine, theirs) = (self.address.clone(), other.redis_address.clone());
            return Some(GateError::OtherRedis { mine, theirs });
        }
        // After an outage of Postgres the others have not sent a heartbeat yet.
        let is_informed = self.heartbeats_since().is_some_and(|since| since.elapsed() > CONNECTED_WITHIN);
        refused.filter(|_| !is_informed)
    }
}

impl Place {
    pub(in crate::gate) const fn server(&self) -> &ServerId {
        &self.server
    }

    /// Whether the generation was opened in this Redis process, as far as Postgres knows.
    pub(in crate::gate) fn is_home(&self) -> bool {
        self.recorded.as_ref().is_none_or(|recorded| recorded.is_of(&self.server))
    }

    /// Whether the generation is open in this Redis process.
    pub(in crate::gate) fn is_open(&self) -> bool {
        self.is_home() && self.has_own_fence()
    }

    /// The fence of the open generation, if a gate of an older version has opened it and Postgres does not have it.
    pub(in crate::gate) fn unrecorded_fence(&self) -> Option<&Fence> {
        self.found.as_ref().filter(|_| self.recorded.is_none() && self.is_open())
    }

    /// Whether Redis decides calls of the generation.
    fn has_own_fence(&self) -> bool {
        self.found.as_ref() == Some(&Fence::new(self.generation, &self.server))
    }

    /// Whether this Redis has the data of the generation, or had it: it is the process in which it was opened, a
    /// restart of it, or a replica.
    fn descends(&self) -> bool {
        match &self.recorded {
            Some(recorded) => recorded.is_of(&self.server) || self.found.as_ref() == Some(recorded),
            None => self.generation > 0 && self.found.as_ref().map(Fence::generation) == Some(self.generation),
        }
    }
}

impl Gate {
    /// Returns why this gate does not serve, if other gates serve from another Redis.
    #[must_use]
    pub fn refusal(&self) -> Option<GateError> {
        self.0.one_redis.refused().clone()
    }

    /// Returns the other gates of the installation that were running within the last seconds.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn other_gates(&self) -> Result<Vec<SeenGate>, PostgresError> {
        let mut seen = self.0.postgres.seen_gates(CONNECTED_WITHIN).await?;
        seen.retain(|other| other.gate != self.0.one_redis.gate);
        Ok(seen)
    }

    /// Reports to which Redis this gate is connected. If a partition is open in another one, tries to open it in this
    /// one, or learns that this gate must not serve.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn send_heartbeat(&self) -> Result<(), GateError> {
        let inner = &self.0;
        let server = inner.redis.server_id().await.ok();
        let noted = inner.note_heartbeat(server.as_ref()).await;
        inner.one_redis.heartbeat_ended(noted.is_ok());
        noted?;
        let Some(server) = server else { return Ok(()) };
        let mut is_home = true;
        for (partition, (generation, fence)) in inner.partitions.all().zip(inner.postgres.fences().await?) {
            // If it is unknown where the generation was opened, the opener looks into Redis, and records it.
            if fence.is_some_and(|fence| Fence::found(fence).is_of(&server)) {
                continue;
            }
            is_home = false;
            // Only starts the opening, which may take longer than a heartbeat may wait.
            let _ = inner.leave(partition, generation, Cause::Stale, Instant::now()).await;
        }
        if is_home {
            inner.readmit(&server).await?;
        }
        Ok(())
    }

    /// Deletes this gate from the list of running gates. Another Redis may be opened from now on.
    ///
    /// # Errors
    /// If Postgres is unavailable. Others ignore this gate after a few seconds.
    pub async fn forget_heartbeat(&self) -> Result<(), PostgresError> {
        self.0.postgres.forget_gate(self.0.one_redis.gate).await
    }
}

impl Inner {
    /// Serves from this Redis. If this gate was refused, or was connected to another Redis, reports it immediately:
    /// until then, the other gates ignore this one.
    pub(in crate::gate) async fn readmit(&self, server: &ServerId) -> Result<(), PostgresError> {
        let was_elsewhere = self.one_redis.reported().as_deref() != Some(server.as_str());
        if self.one_redis.readmit() || was_elsewhere { self.note_heartbeat(Some(server)).await } else { Ok(()) }
    }

    pub(in crate::gate) async fn note_heartbeat(&self, server: Option<&ServerId>) -> Result<(), PostgresError> {
        *self.one_redis.reported() = server.map(|server| server.as_str().to_owned());
        self.postgres
            .note_heartbeat(Heartbeat {
                gate: self.one_redis.gate,
                redis_process: server.map(ServerId::as_str),
                redis_address: &self.one_redis.address,
                is_refused: self.one_redis.is_refused(),
            })
            .await
    }

    /// Looks where the partition is open: in this Redis, and according to Postgres.
    pub(in crate::gate) async fn place(
        self: &Arc<Self>,
        partition: Partition,
        watermark: Watermark,
    ) -> Result<Place, GateError> {
        let mut fences = self.postgres.fences().await?;
        let (generation, fence) = fences.swap_remove(partition.index());
        // Another opener may have been faster than the two reads.
        let recorded = fence.filter(|_| generation == watermark.generation).map(Fence::found);
        let (server, found) = (self.redis.server_id().await?, self.redis.fence(partition).await?);
        Ok(Place { server, generation: watermark.generation, found, recorded })
    }

    /// Returns why this gate's Redis may not open the generation now; none if it may. If it may not, calls of this gate
    /// are STALE from now on.
    pub(in crate::gate) async fn objection(
        &self,
        partition: Partition,
        watermark: Watermark,
        place: &Place,
    ) -> Result<Option<GateError>, GateError> {
        let seen = if place.descends() { Vec::new() } else { self.postgres.seen_gates(GONE_AFTER).await? };
        let Some(objection) = self.one_redis.objection(place, &seen) else { return Ok(None) };
        self.generations.learn(partition, watermark.generation, Some(watermark.opened_at));
        if place.has_own_fence() {
            // Two openers have opened the same generation in two servers. Postgres names the other one.
            self.redis.close(partition, place.found.as_ref()).await.map_err(GateError::from)?;
        }
        Ok(Some(objection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: &str = "aa:bb";

    fn server(process: &str) -> ServerId {
        let (run, replication) = process.split_once(':').unwrap();
        ServerId::of_info(&format!("run_id:{run}\nrole:master\nmaster_replid:{replication}\n")).unwrap()
    }

    fn place(found: Option<&str>, recorded: Option<&str>) -> Place {
        let fence = |text: &str| Fence::found(text.to_owned());
        Place { server: server(MINE), generation: 7, found: found.map(fence), recorded: recorded.map(fence) }
    }

    fn other(process: Option<&str>, seconds_ago: f64) -> SeenGate {
        SeenGate {
            gate: Uuid::new_v4(),
            redis_process: process.map(str::to_owned),
            redis_address: "theirs:6379".into(),
            is_refused: false,
            seconds_ago,
        }
    }

    fn may_open(place: &Place, seen: &[SeenGate]) -> bool {
        OneRedis::new("mine:6379".into()).objection(place, seen).is_none()
    }

    #[test]
    fn a_redis_that_has_the_fence_of_the_generation_is_opened_whatever_others_do() {
        let others = [other(Some("cc:dd"), 0.0)];
        for found in [Some("7 cc:dd"), Some("7 aa:bb"), None] {
            assert!(may_open(&place(found, Some("7 aa:bb")), &others), "the same process: {found:?}");
        }
        assert!(may_open(&place(Some("7 cc:dd"), Some("7 cc:dd")), &others), "a replica, or a restart");
        assert!(may_open(&place(Some("7 cc:dd"), None), &others), "opened by an older version");
    }

    #[test]
    fn another_redis_is_opened_only_when_no_gate_is_connected_to_the_first() {
        let there = Some("7 cc:dd");
        for found in [None, Some("6 cc:dd"), Some("7 aa:bb"), Some("7 ee:ff"), Some("9 ee:ff")] {
            let elsewhere = place(found, there);
            assert!(!may_open(&elsewhere, &[other(Some("cc:dd"), 0.5)]), "{found:?}");
            assert!(may_open(&elsewhere, &[other(Some("cc:dd"), 3.5)]), "the gate is gone: {found:?}");
            assert!(may_open(&elsewhere, &[other(None, 0.5)]), "the gate has lost its Redis: {found:?}");
            assert!(may_open(&elsewhere, &[other(Some(MINE), 0.5)]), "the gate has this Redis: {found:?}");
            assert!(may_open(&elsewhere, &[]), "no other gate: {found:?}");
        }
        let refused = SeenGate { is_refused: true, ..other(Some("cc:dd"), 0.5) };
        assert!(may_open(&place(None, there), &[refused]), "a refused gate does not serve");
        assert!(!may_open(&place(None, None), &[other(Some("ee:ff"), 0.5)]), "it is unknown where it was opened");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_gate_waits_until_the_others_are_gone_for_certain() {
        let mine = OneRedis::new("mine:6379".into());
        *mine.heartbeats_since() = Some(Instant::now());
        tokio::time::advance(CONNECTED_WITHIN * 2).await;
        let elsewhere = place(None, Some("7 cc:dd"));
        let may_open = |seen: &[SeenGate]| mine.objection(&elsewhere, seen).is_none();
        assert!(may_open(&[other(None, 0.5)]));
        let objection = mine.objection(&elsewhere, &[other(Some("cc:dd"), 0.5)]).unwrap();
        mine.refuse(&objection);
        assert!(!may_open(&[other(None, 0.5)]), "its Redis restarts");
        assert!(!may_open(&[other(Some("cc:dd"), 20.0)]), "Postgres was away from it");
        assert!(may_open(&[]), "it has stopped");
        *mine.heartbeats_since() = Some(Instant::now());
        assert!(!may_open(&[]), "Postgres was away from this gate");
    }
}
