//! The life of a partition in Redis: close, open, trim, sweep. Each is a script of `lua/partition/`.
//!
//! The order in which these are called, and what Postgres does in between, is in `gate/opening.rs`.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{connection::Redis, error::RedisError, fence::Fence, keys, record::Record, usage_stream::RawEntry};
use crate::domain::{
    journal::{Entry, Position, StreamId},
    partition::Partition,
    user_id::UserId,
};

/// Entries per read while a stream is drained: some thousand events, a few hundred kilobytes.
const DRAIN_ENTRIES: usize = 1_000;

/// Everything that a partition's streams held when they were drained.
#[derive(Debug, Clone)]
pub struct Drained {
    /// The entries of all streams.
    pub entries: Vec<Entry>,
    /// The highest generation seen in this Redis, 0 for none.
    pub generation_max: u32,
    listed: usize,
    streams: Vec<(u32, Option<RawEntry>)>,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Records that were deleted.
    pub deleted: u64,
    /// Records that were freed of expired holds.
    pub freed: u64,
}

impl Redis {
    /// What is open in this Redis.
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

    /// Whether this Redis accepts writes at all: a replica does not, nor does a primary that misses its replicas or its disk.
    ///
    /// # Errors
    /// If Redis does not answer, or accepts no writes. Nothing is changed in any case.
    pub async fn try_write(&self, partition: Partition) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("DEL");
        command.arg(keys::nothing(partition));
        command.query_async(&mut connection).await.map_err(|error| RedisError::of_sent(&error))
    }

    /// Takes the fence away, if it is still the one that was `seen`. False when it is another.
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

    /// Reads every stream of a partition whole: those listed, and those of the fence and of Postgres' generation.
    ///
    /// # Errors
    /// If Redis does not answer. Nothing is changed in any case.
    pub async fn drain(&self, partition: Partition, also: &[u32]) -> Result<Drained, RedisError> {
        let listed: BTreeSet<u32> = {
            let mut connection = self.connection().await?;
            redis::cmd("SMEMBERS")
                .arg(keys::generations(partition))
                .query_async(&mut connection)
                .await
                .map_err(RedisError::not_executed)?
        };
        let generations: BTreeSet<u32> = listed.iter().chain(also).copied().collect();
        let mut drained = Drained {
            entries: Vec::new(),
            generation_max: generations.last().copied().unwrap_or(0),
            listed: listed.len(),
            streams: Vec::with_capacity(generations.len()),
        };
        for generation in generations {
            let last = self.drain_stream(partition, generation, &mut drained.entries).await?;
            drained.streams.push((generation, last));
        }
        Ok(drained)
    }

    async fn drain_stream(
        &self,
        partition: Partition,
        generation: u32,
        entries: &mut Vec<Entry>,
    ) -> Result<Option<RawEntry>, RedisError> {
        let key = keys::stream(partition, generation);
        let (mut start, mut last) = ("-".to_owned(), None);
        loop {
            let read = self.read_raw(&key, &start, DRAIN_ENTRIES).await?;
            let complete = read.len() < DRAIN_ENTRIES;
            if let Some(entry) = read.last() {
                start = format!("({}", entry.id);
                last = Some(entry.clone());
            }
            entries.extend(read.into_iter().map(RawEntry::decode));
            if complete {
                return Ok(last);
            }
        }
    }

    /// Begins a generation, if nothing happened since the drain. False when something did.
    ///
    /// # Errors
    /// If Redis does not answer. Opening again answers false.
    pub async fn open(&self, partition: Partition, generation: u32, drained: &Drained) -> Result<bool, RedisError> {
        let script = redis::Script::new(include_str!("../../../lua/partition/open.lua"));
        let mut invocation = script.prepare_invoke();
        invocation
            .key(keys::fence(partition))
            .key(keys::generations(partition))
            .key(keys::stream(partition, generation))
            .arg(generation)
            .arg(drained.listed);
        for (generation, last) in &drained.streams {
            invocation.key(keys::stream(partition, *generation));
            match last {
                Some(entry) => invocation.arg(entry.id.to_string()).arg(entry.payload.as_slice()),
                None => invocation.arg("").arg(""),
            };
        }
        let mut connection = self.connection().await?;
        invocation.invoke_async(&mut connection).await.map_err(|error| RedisError::of_sent(&error))
    }

    /// Drops what Postgres has, if the anchor that was just committed is there. None when it is not.
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

    /// Some records of a partition, and where to go on; 0 when all were seen. As `SCAN`, it may show one twice.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn scan_records(&self, partition: Partition, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(keys::records(partition)).arg("COUNT").arg(1_000);
        command.query_async(&mut connection).await.map_err(RedisError::not_executed)
    }

    /// Deletes records that nobody has touched since, and drops expired holds. None when the fence is another one.
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
        let script = redis::Script::new(include_str!("../../../lua/partition/sweep.lua"));
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

    /// One user's record as it stands, for people to look at.
    ///
    /// # Errors
    /// If Redis does not answer, or the bytes are no record.
    pub async fn record(&self, partition: Partition, user: &UserId) -> Result<Option<Record>, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("GET");
        command.arg(keys::record(partition, user));
        let value: Option<Vec<u8>> = command.query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        Record::of(user, value)
    }
}
