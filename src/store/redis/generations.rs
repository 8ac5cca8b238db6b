//! The generation of each partition that this gate assumes to be open. Calls name it until Redis answers STALE.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, Utc};

use crate::domain::partition::{Partition, Partitions};

/// The generation of each partition that this gate assumes to be open (0 if unknown), and since when Redis has every
/// answer in it, if known. One word has both: the generation in the upper half, seconds since 1970 in the lower half.
#[derive(Debug, Clone)]
pub struct Generations(Arc<[AtomicU64]>);

impl Generations {
    /// Creates the list with no generation known.
    #[must_use]
    pub fn unknown(partitions: Partitions) -> Self {
        Self(partitions.all().map(|_| AtomicU64::new(0)).collect())
    }

    /// The generation that this gate assumes to be open.
    #[must_use]
    pub fn get(&self, partition: Partition) -> u32 {
        self.answers_since(partition).0
    }

    /// The same, and since when Redis has every answer to a request with an Idempotency-Key, at most one second late;
    /// none if unknown.
    #[must_use]
    pub fn answers_since(&self, partition: Partition) -> (u32, Option<DateTime<Utc>>) {
        let word = self.0[partition.index()].load(Ordering::Acquire);
        let [generation, seconds] =
            [word >> 32, word & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(0));
        (generation, DateTime::from_timestamp(seconds.into(), 0).filter(|_| seconds > 0))
    }

    /// Stores what Postgres reports. Generations only rise, so an older one is ignored.
    pub fn learn(&self, partition: Partition, generation: u32, answers_since: Option<DateTime<Utc>>) {
        let seconds = answers_since.and_then(|at| u32::try_from(at.timestamp() + 1).ok()).unwrap_or(0);
        let word = u64::from(generation) << 32 | u64::from(seconds);
        self.0[partition.index()].fetch_max(word, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_generation_and_a_known_time_win() {
        let partitions = Partitions::new(2).unwrap();
        let (generations, partition) = (Generations::unknown(partitions), partitions.all().nth(1).unwrap());
        assert_eq!(generations.answers_since(partition), (0, None));
        let at = |seconds| DateTime::from_timestamp(seconds, 0);
        generations.learn(partition, 3, None);
        assert_eq!(generations.answers_since(partition), (3, None));
        generations.learn(partition, 3, at(1_000));
        generations.learn(partition, 3, None);
        generations.learn(partition, 2, at(2_000));
        assert_eq!(
            generations.answers_since(partition),
            (3, at(1_001)),
            "rounded up, so nothing seems older than it is"
        );
        generations.learn(partition, 4, None);
        assert_eq!(generations.answers_since(partition), (4, None));
    }
}
