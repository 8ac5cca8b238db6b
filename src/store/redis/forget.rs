//! Replaces the record of a user who is being forgotten by a mark. Twin: `lua/partition/forget.lua`.

use std::time::Duration;

use super::{
    connection::Redis,
    error::RedisError,
    keys,
    packed::PutBytes,
    record::{FORMAT, Record},
};
use crate::domain::{
    calendar::{AnchorDay, Period},
    meter::MeterCode,
    partition::Partition,
    user_id::UserId,
};

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct ReadRecord {
    /// The record; none if Redis has none, or if it is a mark.
    pub record: Option<Record>,
    bytes: Vec<u8>,
}

/// The generation of a mark. No partition reaches it, so operations take the record for missing, and every seed for
/// older.
const NEVER: u32 = u32::MAX;

impl Redis {
    /// Reads a record for [`mark_forgotten`](Self::mark_forgotten).
    ///
    /// # Errors
    /// If Redis does not answer, or the record is invalid.
    pub async fn read_record(
        &self,
        partition: Partition,
        (user, meter): (&UserId, MeterCode),
    ) -> Result<ReadRecord, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("GET");
        command.arg(keys::record_of(partition, user, meter));
        let bytes: Option<Vec<u8>> = command.query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        let record = Record::of(user, bytes.clone())?.filter(|record| record.generation != NEVER);
        Ok(ReadRecord { record, bytes: bytes.unwrap_or_default() })
    }

    /// Replaces a record by a mark, for `kept`: until it expires, no operation finds the user, and no seed creates a
    /// record. Returns false, and changes nothing, if the record is not the one that was read. Without one, it may be
    /// any.
    ///
    /// # Errors
    /// If Redis does not answer. Marking again is harmless.
    pub async fn mark_forgotten(
        &self,
        partition: Partition,
        (user, meter): (&UserId, MeterCode),
        read: Option<&ReadRecord>,
        period: Period,
        kept: Duration,
    ) -> Result<bool, RedisError> {
        let script = redis::Script::new(include_str!("../../../lua/partition/forget.lua"));
        let mut connection = self.connection().await?;
        script
            .key(keys::record_of(partition, user, meter))
            .arg(read.map_or(&[][..], |read| read.bytes.as_slice()))
            .arg(mark(period))
            .arg(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX))
            .arg(u8::from(read.is_none()))
            .invoke_async(&mut connection)
            .await
            .map_err(|error| RedisError::of_sent(&error))
    }
}

impl Redis {
    /// Removes the record or mark of a forgotten user, for whom no record is created.
    ///
    /// # Errors
    /// If Redis does not answer. Removing again is harmless.
    pub async fn unmark_forgotten(
        &self,
        partition: Partition,
        (user, meter): (&UserId, MeterCode),
    ) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("DEL");
        command.arg(keys::record_of(partition, user, meter));
        command.query_async(&mut connection).await.map_err(|error| RedisError::of_sent(&error))
    }
}

/// Packs a record without usage. Its level is never used; its version keeps it from the sweeper.
fn mark(period: Period) -> Vec<u8> {
    let mut to = Vec::with_capacity(40);
    to.put_u8(FORMAT);
    to.put_u32(NEVER);
    to.put_u24(period.code(AnchorDay::FIRST));
    to.put_u8(1); // level
    to.put_u32(0); // quota
    to.put_u8(0); // pending level
    to.put_u32(0); // level version
    to.put_u32(0); // used
    to.put_u48(0); // total used
    to.put_u16(0); // day
    to.put_u32(0); // used today
    to.put_u48((1 << 48) - 1); // version
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_record_without_usage_of_a_generation_that_never_opens() {
        let record = Record::decode(&mark(Period::from_id(202_611).unwrap())).unwrap();
        assert_eq!((record.generation, record.used.get(), record.total_used), (u32::MAX, 0, 0));
    }
}
