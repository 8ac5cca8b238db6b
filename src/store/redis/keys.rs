//! How every key is spelled. The hash tag comes first, so nothing in a user id can change the slot.

use std::fmt::Write;

use uuid::Uuid;

use crate::domain::{idempotency::IdempotencyKey, partition::Partition, user_id::UserId};

/// `qg:{NN}:u:<user>`: the user's record, a packed string.
pub(super) fn record(partition: Partition, user: &UserId) -> String {
    format!("qg:{{{partition}}}:u:{user}")
}

/// `qg:{NN}:u:*`: all records of a partition, as a pattern.
pub(super) fn records(partition: Partition) -> String {
    format!("qg:{{{partition}}}:u:*")
}

/// `qg:{NN}:gen`: the fence, the generation that is open in this Redis.
pub(super) fn fence(partition: Partition) -> String {
    format!("qg:{{{partition}}}:gen")
}

/// `qg:{NN}:gens`: the generations whose streams exist, a set.
pub(super) fn generations(partition: Partition) -> String {
    format!("qg:{{{partition}}}:gens")
}

/// `qg:{NN}:ev:<generation>`: the partition's usage stream.
pub(super) fn stream(partition: Partition, generation: u32) -> String {
    format!("qg:{{{partition}}}:ev:{generation}")
}

/// `qg:{NN}:i:<user>:<key>`: the first answer to a request that carried an Idempotency-Key.
pub(super) fn outcome(partition: Partition, user: &UserId, key: &IdempotencyKey) -> String {
    format!("qg:{{{partition}}}:i:{user}:{}", key.as_str())
}

/// `qg:{NN}:s:<hold>`: how a hold was settled.
pub(super) fn settlement(partition: Partition, hold: Uuid) -> String {
    let mut key = format!("qg:{{{partition}}}:s:");
    // Writing to a String cannot fail.
    let _ = write!(key, "{}", hold.simple());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::partition::Partitions;

    #[test]
    fn keys_are_spelled_exactly_so() {
        let user = UserId::parse("alice@example.com:1").unwrap();
        let partition = Partitions::new(8).unwrap().all().nth(3).unwrap();
        assert_eq!(record(partition, &user), "qg:{03}:u:alice@example.com:1");
        assert_eq!(records(partition), "qg:{03}:u:*");
        assert_eq!(fence(partition), "qg:{03}:gen");
        assert_eq!(generations(partition), "qg:{03}:gens");
        assert_eq!(stream(partition, 12), "qg:{03}:ev:12");
        let key = IdempotencyKey::parse("{k}").unwrap();
        assert_eq!(outcome(partition, &user, &key), "qg:{03}:i:alice@example.com:1:{k}");
        assert_eq!(settlement(partition, Uuid::from_u128(0xab)), "qg:{03}:s:000000000000000000000000000000ab");
    }
}
