//! Pauses between the openings of one partition by one gate, so that what makes it open a partition again and again
//! does not keep the other gates and Postgres busy too.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::partition::{Partition, Partitions};

/// Openings in a row without a pause: more than any fault needs.
const WITHOUT_PAUSE_MAX: u32 = 8;
/// First and longest pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time without an opening after which the count begins again.
const QUIET: Duration = Duration::from_mins(1);

/// The openings of each partition in a row.
#[derive(Debug)]
pub(in crate::gate) struct OpeningPauses(Box<[Mutex<InARow>]>);

#[derive(Debug, Default)]
struct InARow {
    count: u32,
    last: Option<Instant>,
}

impl OpeningPauses {
    pub(in crate::gate) fn new(partitions: Partitions) -> Self {
        Self(partitions.all().map(|_| Mutex::default()).collect())
    }

    /// Returns the pause before another opening of this partition; none if it may begin now.
    pub(in crate::gate) fn before_another(&self, partition: Partition) -> Option<Duration> {
        let further = self.in_a_row(partition).count.checked_sub(WITHOUT_PAUSE_MAX)?;
        Some(PAUSE_MIN.saturating_mul(1 << further.min(16)).min(PAUSE_MAX))
    }

    /// Counts an opening.
    pub(in crate::gate) fn opened(&self, partition: Partition) {
        let mut in_a_row = self.in_a_row(partition);
        *in_a_row = InARow { count: in_a_row.count + 1, last: Some(Instant::now()) };
    }

    fn in_a_row(&self, partition: Partition) -> MutexGuard<'_, InARow> {
        let mut in_a_row = self.0[partition.index()].lock().unwrap_or_else(PoisonError::into_inner);
        if in_a_row.last.is_none_or(|last| last.elapsed() > QUIET) {
            *in_a_row = InARow::default();
        }
        in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_from_the_ninth_opening_on_and_end_after_a_quiet_minute() {
        let partitions = Partitions::new(2).unwrap();
        let [first, second] = [0, 1].map(|number| partitions.all().nth(number).unwrap());
        let pauses = OpeningPauses::new(partitions);
        let mut before = Vec::new();
        for _ in 0..16 {
            before.push(pauses.before_another(first).map_or(0, |pause| pause.as_millis()));
            pauses.opened(first);
        }
        assert_eq!(before, [0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(pauses.before_another(second), None);
        tokio::time::advance(QUIET * 2).await;
        assert_eq!(pauses.before_another(first), None);
    }
}
