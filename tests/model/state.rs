//! The state of the model at one moment: Redis, Postgres, gates, flushers, openers; and the steps that need no
//! `Protocol`.

type Id = u8;
pub(crate) type Charge = u8;
/// A set of charges.
pub(crate) type Charges = u16;

pub(crate) const GENESIS: Entry = Entry { id: 1, charge: None };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) charge: Option<Charge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stream {
    pub(crate) generation: u8,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    /// Generation, and the process in which it was opened.
    pub(crate) fence: Option<(u8, u8)>,
    pub(crate) streams: Vec<Stream>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Postgres {
    pub(crate) generation: u8,
    /// None while the partition is being opened.
    pub(crate) watermark: Option<Entry>,
    pub(crate) rows: Charges,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Flusher {
    Idle,
    Read { generation: u8, from: Entry, new: Vec<Entry> },
    Committed { generation: u8, from: Entry, anchor: Entry },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Opener {
    Idle,
    Looked { generation: u8, fence: Option<(u8, u8)> },
    Begun { generation: u8, fence: Option<(u8, u8)> },
    Closed { generation: u8, highest: u8 },
    Read { generation: u8, highest: u8, streams: Vec<Stream> },
    Drained { generation: u8, highest: u8, streams: Vec<Stream> },
    Opened { generation: u8, new: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) redis: Redis,
    /// Number of the current Redis process.
    pub(crate) process: u8,
    /// The records are of an older copy: another process brought them, and the partition was not opened since.
    pub(crate) stale: bool,
    /// Older copy that Redis may be restored from.
    pub(crate) copy: Redis,
    pub(crate) postgres: Postgres,
    /// Generation that each gate assumes.
    pub(crate) gates: Vec<u8>,
    pub(crate) flushers: Vec<Flusher>,
    pub(crate) openers: Vec<Opener>,
    pub(crate) charges: u8,
    pub(crate) losses: u8,
    pub(crate) acknowledged: Charges,
    /// Charges lost with Redis before they were flushed.
    pub(crate) lost: Charges,
    /// Whether a charge was counted twice.
    pub(crate) doubled: bool,
    /// Whether a charge was decided by an older copy of the records.
    pub(crate) misled: bool,
}

pub(crate) fn bit(charge: Charge) -> Charges {
    1 << charge
}

pub(crate) fn charges_of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Charges {
    entries.into_iter().filter_map(|entry| entry.charge).fold(0, |set, charge| set | bit(charge))
}

impl Redis {
    pub(crate) fn stream(&self, generation: u8) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.generation == generation)
    }

    pub(crate) fn stream_mut(&mut self, generation: u8) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.generation == generation)
    }

    fn charges(&self) -> Charges {
        charges_of(self.streams.iter().flat_map(|stream| &stream.entries))
    }
}

impl State {
    /// Charges acknowledged, not lost with Redis, and not in Postgres.
    pub(crate) fn missing(&self) -> Charges {
        self.acknowledged & !self.postgres.rows & !self.lost
    }

    /// `call.lua`: the fence is the one that the caller named, so the event is journalled. Ids rise within one stream;
    /// after a loss they are used again.
    pub(crate) fn charge(&mut self, gate: usize) {
        let (generation, charge) = (self.gates[gate], self.charges);
        self.misled |= self.stale;
        let Some(stream) = self.redis.stream_mut(generation) else { return };
        let id = stream.entries.last().map_or(2, |entry| entry.id + 1);
        stream.entries.push(Entry { id, charge: Some(charge) });
        self.charges += 1;
        self.acknowledged |= bit(charge);
    }

    /// `Postgres::flush`: compare-and-swap of the watermark, rows, commit.
    pub(crate) fn flush_commit(&mut self, number: usize) {
        let Flusher::Read { generation, from, new } = std::mem::replace(&mut self.flushers[number], Flusher::Idle)
        else {
            return;
        };
        let holds = self.postgres.generation == generation && self.postgres.watermark == Some(from);
        let Some(anchor) = new.last().copied().filter(|_| holds) else { return };
        let charges = charges_of(&new);
        self.doubled |= self.postgres.rows & charges != 0;
        self.postgres.rows |= charges;
        self.postgres.watermark = Some(anchor);
        self.flushers[number] = Flusher::Committed { generation, from, anchor };
    }

    /// `trim.lua`: finds the anchor first, then drops what is before the previous watermark.
    pub(crate) fn flush_trim(&mut self, number: usize) {
        let Flusher::Committed { generation, from, anchor } =
            std::mem::replace(&mut self.flushers[number], Flusher::Idle)
        else {
            return;
        };
        if let Some(stream) = self.redis.stream_mut(generation)
            && stream.entries.contains(&anchor)
        {
            stream.entries.retain(|entry| entry.id >= from.id);
        }
    }
}

/// Another Redis process takes over, with other data. What only the old one had is lost.
pub(crate) fn lose(state: &mut State, becomes: Redis) {
    state.lost |= state.redis.charges() & !becomes.charges() & !state.postgres.rows;
    state.redis = becomes;
    state.process += 1;
    state.stale = true;
    state.losses += 1;
}
