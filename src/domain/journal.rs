//! The journal: what a partition's usage stream holds, and how far Postgres has it.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{InvalidInput, usage::UsageEvent};

/// The id of a stream entry, `ms-seq`. Ids of one stream only ever rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Redis `TIME` in milliseconds, or that of an earlier entry if the clock stepped back.
    pub ms: u64,
    /// Counts entries of one millisecond.
    pub seq: u64,
}

/// A place in a usage stream: an entry, recognised by its id and its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The entry.
    pub id: StreamId,
    /// Its last event; [`Uuid::nil`] for the genesis entry and for one that nobody can read.
    pub event: Uuid,
}

/// How far a partition's events are in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The partition's life in Redis that the position belongs to.
    pub generation: u32,
    /// The last entry whose events are in Postgres; none while the partition is being opened.
    pub position: Option<Position>,
    /// When the generation was opened.
    pub opened_at: DateTime<Utc>,
}

/// One stream entry: all charges of one call to the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the stream.
    pub id: StreamId,
    /// What it holds.
    pub content: Content,
}

/// What a stream entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The entry that a stream begins with.
    Genesis,
    /// Charges, in the order in which they were made.
    Events(Vec<UsageEvent>),
    /// Bytes that are no events. They are kept as a dead letter, so nothing is dropped.
    Unreadable {
        /// The entry's payload.
        bytes: Vec<u8>,
        /// What is wrong with it.
        reason: String,
    },
}

impl StreamId {
    /// Where every stream begins.
    pub const GENESIS: Self = Self { ms: 0, seq: 1 };
}

impl Position {
    /// The genesis entry: nothing was charged yet.
    pub const GENESIS: Self = Self { id: StreamId::GENESIS, event: Uuid::nil() };
}

impl Entry {
    /// The place that a watermark records for this entry.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { id: self.id, event: self.events().last().map_or(Uuid::nil(), |event| event.id) }
    }

    /// The charges of the entry.
    #[must_use]
    pub fn events(&self) -> &[UsageEvent] {
        match &self.content {
            Content::Events(events) => events,
            Content::Genesis | Content::Unreadable { .. } => &[],
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for StreamId {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let parse = |part: &str| part.parse::<u64>().ok();
        text.split_once('-')
            .and_then(|(ms, seq)| Some(Self { ms: parse(ms)?, seq: parse(seq)? }))
            .ok_or_else(|| InvalidInput::new("stream id", format!("must be ms-seq, not {text:?}")))
    }
}
