//! The quotas of the levels in a partition, with which its records begin a period (decision 0018).
//! Twins: `lua/operation/levels.lua`, `lua/partition/levels.lua`.

use super::{
    connection::Redis,
    error::RedisError,
    keys,
    packed::{PutBytes, Reader},
};
use crate::domain::{level::Levels, partition::Partition};

impl Redis {
    /// Stores the quotas of the levels in a partition, unless newer ones are there. Returns false, and changes nothing,
    /// unless this generation is open.
    ///
    /// # Errors
    /// If Redis does not answer. Storing again is harmless.
    pub async fn store_levels(
        &self,
        partition: Partition,
        generation: u32,
        levels: &Levels,
    ) -> Result<bool, RedisError> {
        let script = redis::Script::new(include_str!("../../../lua/partition/levels.lua"));
        let mut connection = self.connection().await?;
        script
            .key(keys::fence(partition))
            .key(keys::levels(partition))
            .arg(generation)
            .arg(encode(levels))
            .invoke_async(&mut connection)
            .await
            .map_err(|error| RedisError::of_sent(&error))
    }

    /// Returns the version of the levels in a partition; 0 for none.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn level_version(&self, partition: Partition) -> Result<u32, RedisError> {
        let value = self.stored_levels(partition).await?;
        Ok(value.and_then(|value| Reader::new(&value).u32()).unwrap_or_default())
    }

    /// Returns whether a partition has exactly these levels.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn has_levels(&self, partition: Partition, levels: &Levels) -> Result<bool, RedisError> {
        Ok(self.stored_levels(partition).await?.is_some_and(|value| value == encode(levels)))
    }

    async fn stored_levels(&self, partition: Partition) -> Result<Option<Vec<u8>>, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("GET");
        command.arg(keys::levels(partition));
        command.query_async(&mut connection).await.map_err(RedisError::not_executed)
    }
}

/// Packs the version and the quotas, those of retired levels too.
pub(super) fn encode(levels: &Levels) -> Vec<u8> {
    let mut to = Vec::with_capacity(4 + 5 * levels.all().len());
    to.put_u32(levels.version());
    for level in levels.all() {
        to.put_u8(level.code.get());
        to.put_u32(level.quota.get());
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        ap::Ap,
        level::{Level, LevelCode, LevelName},
        window::LevelLimits,
    };

    #[test]
    fn levels_are_packed_into_these_exact_bytes() {
        let level = |code, name, quota, retired| Level {
            code: LevelCode::new(code).unwrap(),
            name: LevelName::parse(name).unwrap(),
            quota: Ap::new(quota),
            limits: LevelLimits::default(),
            retired,
        };
        let levels = Levels::new(258, vec![level(1, "trial", 10, true), level(7, "free", 300, false)]).unwrap();
        assert_eq!(encode(&levels), [0, 0, 1, 2, 7, 0, 0, 1, 44, 1, 0, 0, 0, 10]);
    }
}
