//! Reads the levels from Postgres, and sends their quotas to Redis (decision 0018).

use crate::domain::{
    level::{LevelCode, Levels},
    partition::Partition,
};
use crate::gate::{Gate, GateError, Inner};

impl Gate {
    /// Reads the levels from Postgres, sends them to all partitions, and then uses them. Returns false while a
    /// partition is being opened: then the levels stay as they are.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable.
    pub async fn sync_levels(&self) -> Result<bool, GateError> {
        self.0.sync_levels().await
    }
}

impl Inner {
    async fn sync_levels(&self) -> Result<bool, GateError> {
        let levels = self.postgres.all_levels().await?;
        // First Redis: no gate may give a user a level whose quota a partition does not know.
        if !self.send_levels(&levels).await? {
            return Ok(false);
        }
        // Another task may have read newer ones meanwhile.
        if self.levels.get().version() <= levels.version() {
            self.levels.set(levels);
        }
        Ok(true)
    }

    async fn sync_newer_levels(&self) -> Result<(), GateError> {
        if self.postgres.level_version().await? != self.levels.get().version() {
            self.sync_levels().await?;
        }
        Ok(())
    }

    /// Stores the quotas in every partition. Returns true once all partitions have these or newer ones, and keep them:
    /// an opening that begins later reads them from Postgres.
    async fn send_levels(&self, levels: &Levels) -> Result<bool, GateError> {
        for partition in self.partitions.all() {
            let before = self.postgres.watermark(partition.number()).await?;
            if before.position.is_none() || !self.redis.store_levels(partition, before.generation, levels).await? {
                return Ok(false);
            }
            // An opening that has begun meanwhile may have read the levels before.
            let after = self.postgres.watermark(partition.number()).await?;
            if after.position.is_none() || after.generation != before.generation {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends the levels to an open partition that has none: they were deleted, or a gate of a release that sent
    /// them with each call has opened it. Without them it answers STALE to operations that begin a period.
    pub(in crate::gate) async fn restore_levels(&self, partition: Partition, generation: u32) -> Result<(), GateError> {
        if self.redis.level_version(partition).await? == 0 {
            let levels = self.postgres.all_levels().await?;
            self.redis.store_levels(partition, generation, &levels).await?;
        }
        Ok(())
    }

    /// Reads the levels if this one is new here: another gate has used it within the second until this gate reads it.
    pub(in crate::gate) async fn learn_level(&self, level: LevelCode) {
        if self.levels.get().coded(level).is_some() {
            return;
        }
        // One request reads them; the others wait.
        let _alone = self.reading_levels.lock().await;
        if self.levels.get().coded(level).is_none()
            && let Err(error) = self.sync_newer_levels().await
        {
            tracing::warn!(%error, level = level.get(), "the name of a level cannot be read yet");
        }
    }
}
