//! Names of all keys. The hash tag comes first, so a user id cannot change the slot.

use uuid::Uuid;

use crate::domain::{idempotency::IdempotencyKey, meter::MeterCode, partition::Partition, user_id::UserId};

/// The user's record, a packed string: `qg:{NN}:b:<sixteen bytes>` for a user id that is a UUID, which saves 32 bytes
/// per user (decision 0010), `qg:{NN}:u:<user>` for any other.
pub(super) fn record(partition: Partition, user: &UserId) -> Vec<u8> {
    let mut key = format!("qg:{{{partition}}}:u:").into_bytes();
    if let Some(uuid) = user.as_uuid() {
        let kind = key.len() - 2;
        key[kind] = b'b';
        key.extend_from_slice(uuid.as_bytes());
    } else {
        key.extend_from_slice(user.as_str().as_bytes());
    }
    key
}

/// The user's record of a meter. Other meters than the chat have keys of their own kinds, which begin with the code of
/// the meter: `qg:{NN}:m:<code><sixteen bytes>` and `qg:{NN}:n:<code><user>`.
pub(super) fn record_of(partition: Partition, user: &UserId, meter: MeterCode) -> Vec<u8> {
    let mut key = record(partition, user);
    if !meter.is_chat() {
        let kind = format!("qg:{{{partition}}}:").len();
        key[kind] = if user.as_uuid().is_some() { b'm' } else { b'n' };
        key.insert(kind + 2, meter.get());
    }
    key
}

/// The user and the meter of the record with this key.
pub(super) fn account_of(partition: Partition, record: &[u8]) -> Option<(UserId, MeterCode)> {
    let key = record.strip_prefix(format!("qg:{{{partition}}}:").as_bytes())?;
    let (kind, id) = key.split_at_checked(2)?;
    let (meter, id) = match kind {
        b"b:" | b"u:" => (MeterCode::CHAT, id),
        _ => id.split_first().map(|(code, id)| (MeterCode::new(*code), id))?,
    };
    let id = match kind {
        b"b:" | b"m:" => Uuid::from_slice(id).ok()?.to_string(),
        b"u:" | b"n:" => String::from_utf8(id.to_owned()).ok()?,
        _ => return None,
    };
    Some((UserId::parse(&id).ok()?, meter))
}

/// Pattern for the keys of all records of a partition, of every meter.
pub(super) fn records(partition: Partition) -> String {
    format!("qg:{{{partition}}}:[bumn]:*")
}

/// `qg:{NN}:gen`: the fence, the generation that is open in this Redis.
pub(super) fn fence(partition: Partition) -> String {
    format!("qg:{{{partition}}}:gen")
}

/// `qg:{NN}:levels`: the quotas of the levels.
pub(super) fn levels(partition: Partition) -> String {
    format!("qg:{{{partition}}}:levels")
}

/// `qg:{NN}:nothing`: never exists. Deleting it shows whether Redis accepts writes.
pub(super) fn nothing(partition: Partition) -> String {
    format!("qg:{{{partition}}}:nothing")
}

/// `qg:{NN}:gens`: the set of generations whose streams exist.
pub(super) fn generations(partition: Partition) -> String {
    format!("qg:{{{partition}}}:gens")
}

/// `qg:{NN}:ev:<generation>`: the partition's usage stream.
pub(super) fn stream(partition: Partition, generation: u32) -> String {
    format!("qg:{{{partition}}}:ev:{generation}")
}

/// `qg:{NN}:a:`: the prefix of the buckets of answers to requests with an Idempotency-Key.
pub(super) fn answers(partition: Partition) -> Vec<u8> {
    format!("qg:{{{partition}}}:a:").into_bytes()
}

/// `qg:{NN}:i:<user>/<key>`: an answer kept by version 0.1.0. User ids contain no slash, so no two pairs of user and
/// key have the same name.
pub(super) fn outcome(partition: Partition, user: &UserId, key: &IdempotencyKey) -> Vec<u8> {
    format!("qg:{{{partition}}}:i:{user}/{}", key.as_str()).into_bytes()
}

/// `qg:{NN}:s:<sixteen bytes>`: how a hold was settled.
pub(super) fn settlement(partition: Partition, hold: Uuid) -> Vec<u8> {
    let mut key = format!("qg:{{{partition}}}:s:").into_bytes();
    key.extend_from_slice(hold.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::partition::Partitions;

    fn partition() -> Partition {
        Partitions::new(8).unwrap().all().nth(3).unwrap()
    }

    #[test]
    fn keys_have_these_exact_names() {
        let user = UserId::parse("alice@example.com:1").unwrap();
        let partition = partition();
        assert_eq!(record(partition, &user), b"qg:{03}:u:alice@example.com:1");
        assert_eq!(records(partition), "qg:{03}:[bumn]:*");
        let uuid = UserId::parse("30313233-3435-3637-3839-616263646566").unwrap();
        let meter = MeterCode::new(7);
        assert_eq!(record_of(partition, &user, meter), b"qg:{03}:n:\x07alice@example.com:1");
        assert_eq!(record_of(partition, &uuid, meter), b"qg:{03}:m:\x070123456789abcdef");
        assert_eq!(record_of(partition, &user, MeterCode::CHAT), record(partition, &user));
        assert_eq!(fence(partition), "qg:{03}:gen");
        assert_eq!(levels(partition), "qg:{03}:levels");
        assert_eq!(nothing(partition), "qg:{03}:nothing");
        assert_eq!(generations(partition), "qg:{03}:gens");
        assert_eq!(stream(partition, 12), "qg:{03}:ev:12");
        let key = IdempotencyKey::parse("{k}").unwrap();
        assert_eq!(outcome(partition, &user, &key), b"qg:{03}:i:alice@example.com:1/{k}");
        assert_eq!(answers(partition), b"qg:{03}:a:");
        assert_eq!(settlement(partition, Uuid::from_bytes(*b"0123456789abcdef")), b"qg:{03}:s:0123456789abcdef");
    }

    #[test]
    fn the_user_and_the_meter_are_read_from_the_key_of_a_record() {
        for id in ["alice@example.com:1", "30313233-3435-3637-3839-616263646566", "b:u"] {
            for meter in [MeterCode::CHAT, MeterCode::new(1), MeterCode::new(255)] {
                let user = UserId::parse(id).unwrap();
                let key = record_of(partition(), &user, meter);
                assert_eq!(account_of(partition(), &key), Some((user, meter)));
            }
        }
        for other in ["qg:{03}:gen", "qg:{03}:b:short", "qg:{04}:u:alice", "qg:{03}:u:", "qg:{03}:n:", "qg:{03}:m:1"] {
            assert_eq!(account_of(partition(), other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_uuid_takes_sixteen_bytes_and_other_spellings_are_other_users() {
        let key = |id: &str| record(partition(), &UserId::parse(id).unwrap());
        assert_eq!(key("30313233-3435-3637-3839-616263646566"), b"qg:{03}:b:0123456789abcdef");
        for other in [
            "0123456789abcdef",
            "30313233343536373839616263646566",
            "30313233-3435-3637-3839-61626364656F",
            "30313233-3435-3637-3839-61626364656g",
            "303132333435-3637-3839-6162-63646566",
        ] {
            assert_eq!(key(other), format!("qg:{{03}}:u:{other}").into_bytes());
        }
    }
}
