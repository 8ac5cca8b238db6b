//! Operations on a partition in Redis: close, open, trim, sweep. Each is a script in `lua/partition/`.
//!
//! `gate/opening.rs` has their order, and what Postgres does in between.

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, Utc};

use super::{connection::Redis, error::RedisError, fence::Fence, keys, levels, record::Record, usage_stream::RawEntry};
use crate::domain::{
    journal::{Anchor, Entry, Position, StreamId},
    level::Levels,
    meter::MeterCode,
    partition::Partition,
    user_id::UserId,
};

/// Entries per read of a drain: a few thousand events, a few hundred kilobytes.
const DRAIN_ENTRIES: usize = 1_000;

/// The first line of a script that also runs while Redis' memory is full, because it frees more than it takes.
macro_rules! allow_oom {
    () => {
        "#!lua flags=allow-oom\n"
    };
}

/// A drain in progress. It keeps only a part of the streams in memory.
#[derive(Debug)]
pub struct Draining {
    redis: Redis,
    partition: Partition,
    /// Generations whose streams are not fully read yet.
    unread: VecDeque<u32>,
    /// The entry up to which Postgres has the journal.
    anchor: Option<Anchor>,
    /// Last entry that was read of the first of them.
    last: Option<RawEntry>,
    /// Generation of the entries that were returned last.
    returned: u32,
    drained: Drained,
}

/// The ends of a partition's streams when they were drained.
#[derive(Debug, Clone)]
pub struct Drained {
    /// Highest generation found in this Redis; 0 if none.
    pub generation_max: u32,
    /// Whether a stream has the anchor.
    pub anchor_found: bool,
    listed: usize,
    streams: Vec<(u32, Option<RawEntry>)>,
}

/// Result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Deleted records.
    pub deleted: u64,
    /// Records from which expired holds were removed.
    pub freed: u64,
}

impl Draining {
    /// Returns the next entries; none when all streams are read.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, RedisError> {
        while let Some(generation) = self.unread.front().copied() {
            let start = self.last.as_ref().map_or_else(|| "-".to_owned(), |last| format!("({}", last.id));
            let read = self.redis.read_raw(&keys::stream(self.partition, generation), &start, DRAIN_ENTRIES).await?;
            let is_complete = read.len() < DRAIN_ENTRIES;
            self.last = read.last().cloned().or(self.last.take());
            if is_complete {
                self.drained.streams.push((generation, self.last.take()));
                self.unread.pop_front();
            }
            if !read.is_empty() {
                self.returned = generation;
                let entries: Vec<Entry> =
                    read.into_iter().map(|entry| entry.decode(self.redis.reads_formats_to)).collect();
                let is_anchor = |entry: &Entry| self.anchor.is_some_and(|anchor| anchor.is(generation, entry));
                self.drained.anchor_found |= entries.iter().any(is_anchor);
                return Ok(Some(entries));
            }
        }
        Ok(None)
    }

    /// Generation of the stream that contains the entries returned last.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.returned
    }

    /// The ends of the streams; none unless all are read.
    #[must_use]
    pub fn ended(self) -> Option<Drained> {
        self.unread.is_empty().then_some(self.drained)
    }
}

impl Redis {
    /// Reads the fence.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn fence(&self, partition: Partition) -> Result<Option<Fence>, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("GET");
        command.arg(keys::fence(partition));
        let found: Option<String> = command.query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        Ok(found.map(Fence::found))
    }

    /// Checks that Redis accepts writes. A replica does not, nor does a primary that lost its replicas or its disk.
    ///
    /// # Errors
    /// If Redis does not answer or refuses writes. Nothing is changed.
    pub async fn try_write(&self, partition: Partition) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("DEL");
        command.arg(keys::nothing(partition));
        command.query_async(&mut connection).await.map_err(|error| RedisError::of_sent(&error))
    }

    /// Deletes the fence if it is still the one that was `seen`. Returns false if it is another.
    ///
    /// # Errors
    /// If Redis does not answer. Closing again is harmless.
    pub async fn close(&self, partition: Partition, seen: Option<&Fence>) -> Result<bool, RedisError> {
        let script = redis::Script::new(include_str!("../../../lua/partition/close.lua"));
        let mut connection = self.connection().await?;
        let seen = seen.map_or_else(String::new, Fence::to_string);
        script
            .key(keys::fence(partition))
            .arg(seen)
            .invoke_async(&mut connection)
            .await
            .map_err(|error| RedisError::of_sent(&error))
    }

    /// Starts to read every stream of a partition: those listed, and those of `also`, the fence's and Postgres'
    /// generation. `anchor`: the entry up to which Postgres has the journal.
    ///
    /// # Errors
    /// If Redis does not answer. Nothing is changed.
    pub async fn drain(
        &self,
        partition: Partition,
        also: &[u32],
        anchor: Option<Anchor>,
    ) -> Result<Draining, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("SMEMBERS");
        command.arg(keys::generations(partition));
        let listed: BTreeSet<u32> = command.query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        let generations: BTreeSet<u32> = listed.iter().chain(also).copied().collect();
        Ok(Draining {
            redis: self.clone(),
            partition,
            anchor,
            drained: Drained {
                generation_max: generations.last().copied().unwrap_or(0),
                anchor_found: false,
                listed: listed.len(),
                streams: Vec::with_capacity(generations.len()),
            },
            unread: generations.into_iter().collect(),
            last: None,
            returned: 0,
        })
    }

    /// Opens a generation with these levels if nothing has changed since the drain, and returns its fence. Returns none
    /// otherwise.
    ///
    /// # Errors
    /// If Redis does not answer. Opening again returns none.
    pub async fn open(
        &self,
        partition: Partition,
        generation: u32,
        drained: &Drained,
        levels: &Levels,
    ) -> Result<Option<Fence>, RedisError> {
        let script = redis::Script::new(concat!(allow_oom!(), include_str!("../../../lua/partition/open.lua")));
        let mut invocation = script.prepare_invoke();
        invocation
            .key(keys::fence(partition))
            .key(keys::generations(partition))
            .key(keys::stream(partition, generation))
            .key(keys::levels(partition))
            .arg(generation)
            .arg(drained.listed)
            .arg(levels::encode(levels));
        for (generation, last) in &drained.streams {
            invocation.key(keys::stream(partition, *generation));
            match last {
                Some(entry) => invocation.arg(entry.id.to_string()).arg(entry.payload.as_slice()),
                None => invocation.arg("").arg(""),
            };
        }
        let mut connection = self.connection().await?;
        let fence: Option<String> =
            invocation.invoke_async(&mut connection).await.map_err(|error| RedisError::of_sent(&error))?;
        Ok(fence.map(Fence::found))
    }

    /// Deletes entries that Postgres has and returns their number; none, and deletes nothing, if the anchor is missing.
    ///
    /// # Errors
    /// If Redis does not answer. Trimming again is harmless.
    pub async fn trim(
        &self,
        partition: Partition,
        generation: u32,
        anchor: Position,
        keep_from: StreamId,
    ) -> Result<Option<u64>, RedisError> {
        let script = redis::Script::new(include_str!("../../../lua/partition/trim.lua"));
        let mut connection = self.connection().await?;
        let dropped: i64 = script
            .key(keys::stream(partition, generation))
            .arg(anchor.id.to_string())
            .arg(anchor.event.as_bytes().as_slice())
            .arg(keep_from.to_string())
            .invoke_async(&mut connection)
            .await
            .map_err(|error| RedisError::of_sent(&error))?;
        Ok(u64::try_from(dropped).ok())
    }

    /// Returns some record keys and the next cursor, 0 at the end. Like `SCAN`, it can return a key twice.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn scan_records(&self, partition: Partition, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(keys::records(partition)).arg("COUNT").arg(1_000);
        command.query_async(&mut connection).await.map_err(RedisError::not_executed)
    }

    /// Like [`scan_records`](Self::scan_records), but returns the user and the meter of each record.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn scan_accounts(
        &self,
        partition: Partition,
        cursor: u64,
    ) -> Result<(u64, Vec<(UserId, MeterCode)>), RedisError> {
        let (next, records) = self.scan_records(partition, cursor).await?;
        Ok((next, records.iter().filter_map(|record| keys::account_of(partition, record)).collect()))
    }

    /// Deletes records unchanged since `untouched_since` and removes expired holds. None if the fence is another.
    ///
    /// # Errors
    /// If Redis does not answer. Sweeping again is harmless.
    pub async fn sweep(
        &self,
        partition: Partition,
        (generation, watermark): (u32, StreamId),
        untouched_since: DateTime<Utc>,
        record_keys: &[Vec<u8>],
    ) -> Result<Option<Swept>, RedisError> {
        let script = redis::Script::new(concat!(allow_oom!(), include_str!("../../../lua/partition/sweep.lua")));
        let mut invocation = script.prepare_invoke();
        invocation.key(keys::fence(partition)).key(keys::stream(partition, generation));
        for key in record_keys {
            invocation.key(key.as_slice());
        }
        invocation.arg(generation).arg(watermark.to_string()).arg(untouched_since.timestamp_millis());
        let mut connection = self.connection().await?;
        let reply: redis::Value =
            invocation.invoke_async(&mut connection).await.map_err(|error| RedisError::of_sent(&error))?;
        match redis::from_redis_value::<(u64, u64)>(reply) {
            Ok((deleted, freed)) => Ok(Some(Swept { deleted, freed })),
            Err(_) => Ok(None),
        }
    }

    /// Returns the stored record of a user's chat, for inspection.
    ///
    /// # Errors
    /// If Redis does not answer, or the record is invalid.
    pub async fn record(&self, partition: Partition, user: &UserId) -> Result<Option<Record>, RedisError> {
        self.record_of(partition, user, MeterCode::CHAT).await
    }

    /// Returns the stored record of a user and a meter, for inspection.
    ///
    /// # Errors
    /// If Redis does not answer, or the record is invalid.
    pub async fn record_of(
        &self,
        partition: Partition,
        user: &UserId,
        meter: MeterCode,
    ) -> Result<Option<Record>, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("GET");
        command.arg(keys::record_of(partition, user, meter));
        let value: Option<Vec<u8>> = command.query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        Record::of(user, value)
    }
}
