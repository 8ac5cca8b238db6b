//! The journal: contents of a partition's usage stream, and how much of it is in Postgres.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{InvalidInput, usage::UsageEvent};

/// Id of a stream entry, `ms-seq`. Ids within a stream only increase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Redis `TIME` in milliseconds, or that of an earlier entry if the clock stepped back.
    pub ms: u64,
    /// Number of the entry within the millisecond.
    pub seq: u64,
}

/// A position in a usage stream: an entry, identified by its id and its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Id of the entry.
    pub id: StreamId,
    /// Id of its last event; [`Uuid::nil`] for the genesis entry and for entries that this gate cannot read.
    pub event: Uuid,
}

/// The entry up to which Postgres has a partition's journal, to look for in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Generation of its stream.
    pub generation: u32,
    /// Its id, if known.
    pub id: Option<StreamId>,
    /// Its last event.
    pub event: Uuid,
}

/// How much of a partition's journal is in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Generation that the position belongs to.
    pub generation: u32,
    /// The last entry whose events are in Postgres; none while the partition is being opened.
    pub position: Option<Position>,
    /// When the generation was opened.
    pub opened_at: DateTime<Utc>,
    /// Since when Redis has every answer to a request with an Idempotency-Key.
    pub answers_since: DateTime<Utc>,
}

/// One stream entry: all charges of one script call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Id in the stream.
    pub id: StreamId,
    /// Contents.
    pub content: Content,
}

/// Contents of a stream entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The first entry of every stream.
    Genesis,
    /// Charges, in the order they were made.
    Events(Vec<UsageEvent>),
    /// Charges in a format of a newer version of the gate, which is left to write them to Postgres. Only the format is
    /// known.
    Newer {
        /// Format of the entry.
        format: u8,
    },
    /// Bytes that cannot be decoded. They are kept as a dead letter, so nothing is dropped.
    Unreadable {
        /// The entry's payload.
        bytes: Vec<u8>,
        /// Why they cannot be decoded.
        reason: String,
    },
}

impl StreamId {
    /// Id of the first entry of every stream.
    pub const GENESIS: Self = Self { ms: 0, seq: 1 };
}

impl Position {
    /// The genesis entry: nothing has been charged yet.
    pub const GENESIS: Self = Self { id: StreamId::GENESIS, event: Uuid::nil() };
}

impl Anchor {
    /// Whether this entry of a stream of `generation` is the anchor. Entries without readable events all
    /// have the nil event, so their ids must be known.
    #[must_use]
    pub fn is(&self, generation: u32, entry: &Entry) -> bool {
        let Position { id, event } = entry.position();
        self.generation == generation && self.event == event && (!event.is_nil() || self.id == Some(id))
    }
}

impl Entry {
    /// The position that a watermark stores for this entry.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { id: self.id, event: self.events().last().map_or(Uuid::nil(), |event| event.id) }
    }

    /// The charges of the entry.
    #[must_use]
    pub fn events(&self) -> &[UsageEvent] {
        match &self.content {
            Content::Events(events) => events,
            Content::Genesis | Content::Newer { .. } | Content::Unreadable { .. } => &[],
        }
    }

    /// Format of an entry that only a gate of a newer version can read.
    #[must_use]
    pub const fn newer_format(&self) -> Option<u8> {
        match &self.content {
            Content::Newer { format } => Some(*format),
            Content::Genesis | Content::Events(_) | Content::Unreadable { .. } => None,
        }
    }

    /// Whether this is the entry of a watermark. Of an entry of a newer version only the id can be compared.
    #[must_use]
    pub fn is_at(&self, position: Position) -> bool {
        self.id == position.id && (self.newer_format().is_some() || self.position() == position)
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
