//! Fingerprints of records, to detect changes. One read covers many users and decodes nothing.

use xxhash_rust::xxh3::xxh3_64;

use super::{connection::Redis, error::RedisError, keys};
use crate::domain::{meter::MeterCode, partition::Partition, user_id::UserId};

impl Redis {
    /// Returns one for each user and meter, in order; none without a record. Equal fingerprints mean equal records.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn fingerprints(
        &self,
        partition: Partition,
        accounts: &[(UserId, MeterCode)],
    ) -> Result<Vec<Option<u64>>, RedisError> {
        if accounts.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<Vec<u8>> =
            accounts.iter().map(|(user, meter)| keys::record_of(partition, user, *meter)).collect();
        let mut connection = self.connection().await?;
        let mut read = redis::cmd("MGET");
        let records: Vec<Option<Vec<u8>>> =
            read.arg(&keys).query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        Ok(records.into_iter().map(|record| record.map(|record| xxh3_64(&record))).collect())
    }
}
