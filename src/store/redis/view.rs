//! A view of a partition at one moment: records, and the journal after a watermark, read in one transaction.

use redis::Value;

use super::{connection::Redis, error::RedisError, fence::Fence, keys, record::Record, usage_stream};
use crate::domain::{
    journal::{Entry, Position},
    meter::MeterCode,
    partition::Partition,
    user_id::UserId,
};

/// Maximum number of entries in a view: what accumulates in a minute without Postgres. More must be flushed first.
const ENTRIES_MAX: usize = 100_000;

/// Records of some users, of one meter, and the journal of their partition after a watermark, at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// One for each user, in order; none for a user without a record in Redis.
    pub records: Vec<Option<Record>>,
    /// The entries after the watermark.
    pub tail: Vec<Entry>,
}

impl Redis {
    /// Reads some users of a partition and their records of a meter. None if `generation` is not open, or the entry at
    /// the watermark is trimmed: then the watermark is outdated and must be read from Postgres again.
    ///
    /// # Errors
    /// If Redis does not answer, a record is invalid, or the journal after the watermark is too long.
    pub async fn view(
        &self,
        partition: Partition,
        (generation, from): (u32, Position),
        (meter, users): (MeterCode, &[&UserId]),
    ) -> Result<Option<View>, RedisError> {
        let records = users.iter().map(|user| keys::record_of(partition, user, meter));
        let fence_and_records: Vec<Vec<u8>> =
            std::iter::once(keys::fence(partition).into_bytes()).chain(records).collect();
        let mut transaction = redis::pipe();
        transaction
            .atomic()
            .cmd("XRANGE")
            .arg(keys::stream(partition, generation))
            .arg(from.id.to_string())
            .arg("+")
            .arg("COUNT")
            .arg(ENTRIES_MAX + 1)
            .cmd("MGET")
            .arg(&fence_and_records);
        let mut connection = self.connection().await?;
        let (range, values): (Value, Vec<Option<Vec<u8>>>) =
            transaction.query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        let mut values = values.into_iter();
        let fence = values.next().flatten().and_then(|text| String::from_utf8(text).ok()).map(Fence::found);
        if fence.is_none_or(|fence| fence.generation() != generation) {
            return Ok(None);
        }
        let mut entries = usage_stream::entries(range, self.reads_formats_to)
            .ok_or_else(|| RedisError::NotExecuted(format!("partition {partition} has no usage stream")))?;
        if !entries.first().is_some_and(|anchor| anchor.is_at(from)) {
            return Ok(None);
        }
        if entries.len() > ENTRIES_MAX {
            return Err(RedisError::NotExecuted(format!(
                "more than {ENTRIES_MAX} entries of partition {partition} are not in Postgres yet: let a flusher catch up first"
            )));
        }
        let records =
            users.iter().zip(values).map(|(user, value)| Record::of(user, value)).collect::<Result<_, _>>()?;
        Ok(Some(View { records, tail: entries.split_off(1) }))
    }
}
