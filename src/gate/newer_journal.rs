//! What this gate cannot read of the journal: entries that a gate of a newer version has written.
//!
//! In a rolling upgrade, gates of two versions share the streams. The older one leaves an entry that it cannot read,
//! and all that follows, to the newer one, and reports it here.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{
    domain::partition::{Partition, Partitions},
    gate::Gate,
};

/// By partition, the format of the first entry that this gate cannot read; 0 if it can read all.
#[derive(Debug)]
pub(in crate::gate) struct NewerJournal(Box<[AtomicU8]>);

impl NewerJournal {
    pub(in crate::gate) fn none(partitions: Partitions) -> Self {
        Self(partitions.all().map(|_| AtomicU8::new(0)).collect())
    }

    pub(in crate::gate) fn note(&self, partition: Partition, format: Option<u8>) {
        let before = self.0[partition.index()].swap(format.unwrap_or(0), Ordering::Relaxed);
        match format {
            Some(format) if before != format => {
                tracing::error!(%partition, format, "{}; until then its usage waits in Redis", reason(format));
            }
            None if before != 0 => tracing::info!(%partition, "all usage can be read again"),
            _ => {}
        }
    }

    pub(in crate::gate) fn get(&self, partition: Partition) -> Option<u8> {
        Some(self.0[partition.index()].load(Ordering::Relaxed)).filter(|format| *format != 0)
    }
}

impl Gate {
    /// Notes whether a partition's journal contains an entry of a format that this gate cannot read.
    pub fn note_newer_journal(&self, partition: Partition, format: Option<u8>) {
        self.0.newer_journal.note(partition, format);
    }

    /// Returns the format of a partition's entries that this gate cannot read, if there are any.
    #[must_use]
    pub fn newer_journal(&self, partition: Partition) -> Option<u8> {
        self.0.newer_journal.get(partition)
    }

    /// Says that some partition has entries that this gate cannot read, and what to do.
    #[must_use]
    pub fn newer_journal_problem(&self) -> Option<String> {
        self.0.partitions.all().filter_map(|partition| self.newer_journal(partition)).max().map(reason)
    }
}

/// What a format that this gate cannot read means.
#[must_use]
pub fn reason(format: u8) -> String {
    format!("a gate of a newer version writes journal format {format}: upgrade this gate")
}
