//! The quotas and limits of the levels in a partition (decision 0018).
//! Twins: `lua/operation/levels.lua`, `lua/partition/levels.lua`.

use super::{
    connection::Redis,
    error::RedisError,
    keys,
    packed::{PutBytes, Reader},
};
use crate::domain::{
    level::{LevelCode, LevelTerms, Levels},
    partition::Partition,
};

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

/// Precedes the code of a meter. No level has this code.
const METER: u8 = 0;

/// Packs the version, the quotas and the limits, those of retired levels too; then those of each meter.
pub(super) fn encode(levels: &Levels) -> Vec<u8> {
    let mut to = Vec::with_capacity(4 + 7 * levels.all().len());
    to.put_u32(levels.version());
    for level in levels.all() {
        put_level(level.code, &level.terms(), &mut to);
    }
    for meter in levels.meters().iter().filter(|meter| !meter.levels.is_empty()) {
        to.put_u8(METER);
        to.put_u8(meter.code.get());
        for (level, terms) in &meter.levels {
            put_level(*level, terms, &mut to);
        }
    }
    to
}

fn put_level(code: LevelCode, terms: &LevelTerms, to: &mut Vec<u8>) {
    to.put_u8(code.get());
    to.put_u32(terms.quota.get());
    to.put_u8(terms.limits.concurrency().unwrap_or_default());
    to.put_u8(u8::try_from(terms.limits.windows().len()).unwrap_or(u8::MAX));
    for window in terms.limits.windows() {
        to.put_u16(window.key.minutes());
        to.put_u8(window.key.unit.code());
        to.put_u32(window.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        ap::Ap,
        level::{Level, LevelName},
        meter::{Meter, MeterCode, MeterName},
        window::{LevelLimits, Window, WindowKey, WindowUnit},
    };

    #[test]
    fn levels_are_packed_into_these_exact_bytes() {
        let limits = || {
            let key = WindowKey::parse("5h", WindowUnit::Requests).unwrap();
            LevelLimits::new(vec![Window { key, limit: 80 }], Some(3)).unwrap()
        };
        let level = |code, name, quota, retired| Level {
            code: LevelCode::new(code).unwrap(),
            name: LevelName::parse(name).unwrap(),
            quota: Ap::new(quota),
            limits: if retired { LevelLimits::default() } else { limits() },
            retired,
        };
        let levels = Levels::new(258, vec![level(1, "trial", 10, true), level(7, "free", 300, false)]).unwrap();
        let free = [7, 0, 0, 1, 44, 3, 1, 1, 44, 2, 0, 0, 0, 80];
        let of_chat = [&[0, 0, 1, 2][..], &free, &[1, 0, 0, 0, 10, 0, 0]].concat();
        assert_eq!(encode(&levels), of_chat);
        let of_free = vec![(LevelCode::new(7).unwrap(), LevelTerms::from(Ap::new(20)))];
        let meter = Meter { code: MeterCode::new(9), name: MeterName::parse("image").unwrap(), levels: of_free };
        let of_meter = [0, 9, 7, 0, 0, 0, 20, 0, 0];
        assert_eq!(encode(&levels.with_meters(vec![meter])), [&of_chat[..], &of_meter].concat());
    }
}
