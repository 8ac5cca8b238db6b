//! The record: the state of one user, one packed string (decision 0001). Twin: `lua/operation/record.lua`.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::error::RedisError;
use super::packed::Reader;
use crate::domain::{
    ap::Ap,
    calendar::{Day, Period},
    clock::instant,
    level::LevelCode,
    user_id::UserId,
};

/// The first byte of every record, without flags.
pub const FORMAT: u8 = 1;
/// Flag of that byte: the quota is the user's own, and stays when a period begins.
pub(super) const OWN_QUOTA: u8 = 8;
/// Flag of that byte: new messages are refused.
pub(super) const BLOCKED: u8 = 16;

/// One user's state in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Generation in which the record was last seeded or changed.
    pub generation: u32,
    /// Period of `used` and `held`.
    pub period: Period,
    /// Level in this period.
    pub level: LevelCode,
    /// AP that the user may use in this period.
    pub quota: Ap,
    /// Whether `quota` is the user's own, not that of the level.
    pub own_quota: bool,
    /// Whether new messages are refused.
    pub blocked: bool,
    /// Level pending for the next period, if any.
    pub pending: Option<LevelCode>,
    /// Counts level changes; a lower version never wins.
    pub level_version: u32,
    /// AP charged in this period.
    pub used: Ap,
    /// AP charged since the user was first seen.
    pub total_used: u64,
    /// Day of `used_today`.
    pub day: Day,
    /// AP charged on that day.
    pub used_today: Ap,
    /// Increases with every change.
    pub version: u64,
    /// AP of the live holds of this period.
    pub held: Ap,
    /// Live holds. Complete in a record and in the answer to a peek; empty in other answers.
    pub holds: Vec<Hold>,
}

/// One live hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Id of the hold.
    pub id: Uuid,
    /// AP held.
    pub ap: Ap,
    /// Period of the hold.
    pub period: Period,
    /// Expiry, in Unix milliseconds.
    pub expiry_ms: u64,
}

impl Record {
    /// Decodes a record from Redis; none if the bytes are not a record of this format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut record = Self::decode_base(&mut reader)?;
        if !reader.is_empty() {
            record.held = Ap::new(reader.u32()?);
            reader.u48()?; // the earliest expiry: a shortcut for the script
            while !reader.is_empty() {
                record.holds.push(Hold::decode(&mut reader)?);
            }
        }
        Some(record)
    }

    /// Decodes the record of this user, if there is one.
    pub(super) fn of(user: &UserId, bytes: Option<Vec<u8>>) -> Result<Option<Self>, RedisError> {
        let no_record = || RedisError::Unfit(format!("the record of user {user} in Redis is invalid"));
        bytes.map(|bytes| Self::decode(&bytes).ok_or_else(no_record)).transpose()
    }

    pub(super) fn decode_base(reader: &mut Reader<'_>) -> Option<Self> {
        let format = reader.u8()?;
        if format & !(OWN_QUOTA | BLOCKED) != FORMAT {
            return None;
        }
        Some(Self {
            own_quota: format & OWN_QUOTA != 0,
            blocked: format & BLOCKED != 0,
            generation: reader.u32()?,
            period: Period::from_id(reader.u24()?).ok()?,
            level: LevelCode::new(reader.u8()?)?,
            quota: Ap::new(reader.u32()?),
            pending: LevelCode::new(reader.u8()?),
            level_version: reader.u32()?,
            used: Ap::new(reader.u32()?),
            total_used: reader.u48()?,
            day: Day::from_number(reader.u16()?),
            used_today: Ap::new(reader.u32()?),
            version: reader.u48()?,
            held: Ap::ZERO,
            holds: Vec::new(),
        })
    }
}

impl Hold {
    /// When the hold expires.
    #[must_use]
    pub fn expires_at(&self) -> DateTime<Utc> {
        instant(i64::try_from(self.expiry_ms).unwrap_or(i64::MAX))
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: reader.uuid()?,
            ap: Ap::new(reader.u32()?),
            period: Period::from_id(reader.u24()?).ok()?,
            expiry_ms: reader.u48()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: [u8; 40] = [
        1, // format
        0, 0, 0, 7, // generation
        0x03, 0x17, 0x73, // period 202611
        2,    // level
        0, 0, 1, 44, // quota 300
        3,  // pending level
        0, 0, 0, 5, // level version
        0, 0, 0, 255, // used
        0, 0, 0, 0, 16, 114, // total used 4210
        81, 26, // day 20762
        0, 0, 0, 12, // used today
        1, 157, 222, 100, 178, 1, // version
    ];

    fn expected() -> Record {
        Record {
            generation: 7,
            period: Period::from_id(202_611).unwrap(),
            level: LevelCode::new(2).unwrap(),
            quota: Ap::new(300),
            own_quota: false,
            blocked: false,
            pending: LevelCode::new(3),
            level_version: 5,
            used: Ap::new(255),
            total_used: 4210,
            day: Day::from_number(20762),
            used_today: Ap::new(12),
            version: 0x019d_de64_b201,
            held: Ap::ZERO,
            holds: vec![],
        }
    }

    #[test]
    fn a_record_without_holds_is_forty_bytes() {
        assert_eq!(Record::decode(&BASE), Some(expected()));
    }

    #[test]
    fn own_quotas_and_blocks_are_flags_of_the_format_byte() {
        for (format, own_quota, blocked) in [(9, true, false), (17, false, true), (25, true, true)] {
            let bytes = [&[format], &BASE[1..]].concat();
            assert_eq!(Record::decode(&bytes), Some(Record { own_quota, blocked, ..expected() }));
        }
    }

    #[test]
    fn holds_follow_the_base() {
        let mut bytes = BASE.to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0, 9]); // held, earliest expiry
        bytes.extend([0xab; 16]);
        bytes.extend([0, 0, 0, 4, 0x03, 0x17, 0x73, 0, 0, 0, 0, 0, 9]);
        let hold = Hold { id: Uuid::from_bytes([0xab; 16]), ap: Ap::new(4), period: expected().period, expiry_ms: 9 };
        assert_eq!(Record::decode(&bytes), Some(Record { held: Ap::new(4), holds: vec![hold], ..expected() }));
    }

    #[test]
    fn invalid_bytes_are_refused() {
        assert_eq!(Record::decode(&[]), None);
        assert_eq!(Record::decode(&BASE[..39]), None);
        assert_eq!(Record::decode(&[&[33], &BASE[1..]].concat()), None);
        assert_eq!(Record::decode(&[&BASE[..], &[0; 11]].concat()), None);
    }
}
