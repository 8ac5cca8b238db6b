//! The sweeper: cleans up the records of inactive users.
//!
//! Records have no time to live: a record that expired could take charges with it that are not in Postgres yet. So the
//! sweeper deletes records that were not used for two periods, once they are flushed, and removes expired holds from
//! the others. It is part of the resetter's daily run.

use crate::{
    domain::partition::Partition,
    gate::Gate,
    store::{
        postgres::PostgresError,
        redis::{RedisError, Swept},
    },
};

/// Sweeps records.
#[derive(Debug, Clone)]
pub struct Sweeper {
    gate: Gate,
}

/// Why a sweep failed. Sweeping again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Redis did not answer.
    #[error("sweeping records: {0}")]
    Redis(#[from] RedisError),
    /// The watermark could not be read.
    #[error("reading the watermark: {0}")]
    Postgres(#[from] PostgresError),
}

impl Sweeper {
    /// The sweeper of this gate.
    #[must_use]
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }

    /// Sweeps every partition.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable. Partitions that were swept before stay swept.
    pub async fn sweep(&self) -> Result<Swept, SweepError> {
        let mut swept = Swept::default();
        for partition in self.gate.partitions().all() {
            let part = self.sweep_partition(partition).await?;
            swept.deleted += part.deleted;
            swept.freed += part.freed;
        }
        Ok(swept)
    }

    async fn sweep_partition(&self, partition: Partition) -> Result<Swept, SweepError> {
        let watermark = self.gate.postgres().watermark(partition.number()).await?;
        let mut swept = Swept::default();
        // While a partition is being opened, it is unknown what is flushed.
        let Some(position) = watermark.position else { return Ok(swept) };
        let calendar = self.gate.calendar();
        let untouched_since = calendar.period_start(calendar.month_at(self.gate.now()).month_before());
        let mut cursor = 0;
        loop {
            let (next, records) = self.gate.redis().scan_records(partition, cursor).await?;
            let open = (watermark.generation, position.id);
            let Some(one) = self.gate.redis().sweep(partition, open, untouched_since, &records).await? else {
                return Ok(swept);
            };
            swept.deleted += one.deleted;
            swept.freed += one.freed;
            cursor = next;
            if cursor == 0 {
                return Ok(swept);
            }
        }
    }
}
