//! The record: the state of one user, one packed string (decision 0001). Twin: `lua/operation/record.lua`.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::error::RedisError;
use super::packed::Reader;
use super::tails;
use crate::domain::{
    ap::Ap,
    calendar::{AnchorDay, Day, Period},
    clock::instant,
    grant::Grants,
    level::LevelCode,
    user_id::UserId,
    window::WindowState,
};

/// Format of records without windows and grants: the low bits of the first byte.
pub const FORMAT: u8 = 1;
/// Format of records with tails.
const EXTENDED_FORMAT: u8 = 2;
/// Bits of the first byte that are the format.
const FORMAT_BITS: u8 = 7;
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
    /// Day of the month on which the user's periods begin.
    pub anchor_day: AnchorDay,
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
    /// AP of the live holds of this period that the plan is to pay.
    pub held: Ap,
    /// AP of all live holds that grants are to pay.
    pub held_granted: Ap,
    /// Live holds. Complete in a record and in the answer to a peek; empty in other answers.
    pub holds: Vec<Hold>,
    /// Running windows. Only in a record; answers have [`super::Answer::limits`].
    pub windows: Vec<WindowState>,
    /// Grants that can pay, and the version of the list that the record knows. Only in a record, like the windows.
    pub grants: Grants,
    /// Whether the record has format 2.
    is_extended: bool,
}

/// One live hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Id of the hold.
    pub id: Uuid,
    /// AP held: of the plan and of grants.
    pub ap: Ap,
    /// AP of it that grants are to pay.
    pub granted: Ap,
    /// When it was made, in Unix milliseconds; 0 in a record of format 1.
    pub made_ms: u64,
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
        if record.is_extended {
            record.decode_tails(&mut reader)?;
        } else if !reader.is_empty() {
            record.held = Ap::new(reader.u32()?);
            reader.u48()?; // the earliest expiry: a shortcut for the script
            while !reader.is_empty() {
                record.decode_hold(&mut reader)?;
            }
        }
        Some(record)
    }

    fn decode_tails(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let tails = reader.u8()?;
        if tails & tails::WINDOWS != 0 {
            self.windows = tails::windows(reader)?;
        }
        if tails & tails::GRANTS != 0 {
            self.grants = tails::grants(reader)?;
        }
        if tails & tails::HOLDS != 0 {
            (self.held, self.held_granted) = (Ap::new(reader.u32()?), Ap::new(reader.u32()?));
            reader.u48()?; // the earliest expiry
            while !reader.is_empty() {
                self.decode_hold(reader)?;
            }
        }
        reader.is_empty().then_some(())
    }

    /// Decodes a hold in the format of the record.
    pub(super) fn decode_hold(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let hold = if self.is_extended { Hold::decode_extended(reader)? } else { Hold::decode(reader)? };
        self.holds.push(hold);
        Some(())
    }

    /// Decodes the record of this user, if there is one.
    pub(super) fn of(user: &UserId, bytes: Option<Vec<u8>>) -> Result<Option<Self>, RedisError> {
        let no_record = || RedisError::Unfit(format!("the record of user {user} in Redis is invalid"));
        bytes.map(|bytes| Self::decode(&bytes).ok_or_else(no_record)).transpose()
    }

    pub(super) fn decode_base(reader: &mut Reader<'_>) -> Option<Self> {
        let byte = reader.u8()?;
        let format = byte & FORMAT_BITS;
        if byte & !(FORMAT_BITS | OWN_QUOTA | BLOCKED) != 0 || !matches!(format, FORMAT | EXTENDED_FORMAT) {
            return None;
        }
        let generation = reader.u32()?;
        let (period, anchor_day) = Period::from_code(reader.u24()?).ok()?;
        Some(Self {
            is_extended: format == EXTENDED_FORMAT,
            own_quota: byte & OWN_QUOTA != 0,
            blocked: byte & BLOCKED != 0,
            generation,
            period,
            anchor_day,
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
            held_granted: Ap::ZERO,
            holds: Vec::new(),
            windows: Vec::new(),
            grants: Grants::default(),
        })
    }
}

impl Hold {
    /// When the hold expires.
    #[must_use]
    pub fn expires_at(&self) -> DateTime<Utc> {
        instant(i64::try_from(self.expiry_ms).unwrap_or(i64::MAX))
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: reader.uuid()?,
            ap: Ap::new(reader.u32()?),
            granted: Ap::ZERO,
            period: Period::from_code(reader.u24()?).ok()?.0,
            made_ms: 0,
            expiry_ms: reader.u48()?,
        })
    }

    fn decode_extended(reader: &mut Reader<'_>) -> Option<Self> {
        let (id, plan, granted) = (reader.uuid()?, Ap::new(reader.u32()?), Ap::new(reader.u32()?));
        Some(Self {
            id,
            ap: plan.saturating_add(granted),
            granted,
            period: Period::from_code(reader.u24()?).ok()?.0,
            made_ms: reader.u48()?,
            expiry_ms: reader.u48()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        grant::{Grant, GrantNumber},
        window::{WindowKey, WindowUnit},
    };

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
            anchor_day: AnchorDay::FIRST,
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
            held_granted: Ap::ZERO,
            holds: vec![],
            windows: vec![],
            grants: Grants::default(),
            is_extended: false,
        }
    }

    #[test]
    fn a_record_without_holds_is_forty_bytes() {
        assert_eq!(Record::decode(&BASE), Some(expected()));
    }

    #[test]
    fn a_period_that_is_no_calendar_month_has_its_anchor_in_the_same_bytes() {
        let mut bytes = BASE;
        bytes[5..8].copy_from_slice(&[0x80 + 15, 0x51, 0x26]);
        let (period, anchor_day) = (Period::from_id(20_261_117).unwrap(), AnchorDay::new(15).unwrap());
        assert_eq!(Record::decode(&bytes), Some(Record { period, anchor_day, ..expected() }));
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
        let (id, period) = (Uuid::from_bytes([0xab; 16]), expected().period);
        let hold = Hold { id, ap: Ap::new(4), granted: Ap::ZERO, period, made_ms: 0, expiry_ms: 9 };
        assert_eq!(Record::decode(&bytes), Some(Record { held: Ap::new(4), holds: vec![hold], ..expected() }));
    }

    #[test]
    fn windows_grants_and_holds_follow_the_base_of_format_2() {
        let mut bytes = BASE.to_vec();
        bytes[0] = 2 + 8; // with a quota of the user's own
        bytes.push(1 + 2 + 4);
        bytes.extend([1, 1, 44, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 60]); // 300 minutes of AP
        bytes.extend([0, 0, 0, 0, 1, 2, 2]); // version 258, two grants
        bytes.extend([0, 0, 0, 0, 1, 1, 0, 0, 0, 70, 0, 0, 0, 0, 0, 0, 5]);
        bytes.extend([0, 0, 0, 0, 1, 2, 0, 0, 0, 80, 0, 0, 0, 0, 0, 8, 6]);
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 0, 0, 9]); // held, granted, earliest expiry
        bytes.extend([0xab; 16]);
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 3, 0x03, 0x17, 0x73, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 9]);
        let (id, period) = (Uuid::from_bytes([0xab; 16]), expected().period);
        let hold = Hold { id, ap: Ap::new(7), granted: Ap::new(3), period, made_ms: 6, expiry_ms: 9 };
        let key = WindowKey::new(300, WindowUnit::Ap).unwrap();
        let grant = |number, left, expires_ms: Option<i64>, priority| Grant {
            number: GrantNumber::new(number).unwrap(),
            left: Ap::new(left),
            expires_at: expires_ms.map(instant),
            priority,
        };
        let record = Record {
            held: Ap::new(4),
            held_granted: Ap::new(3),
            holds: vec![hold],
            windows: vec![WindowState { key, start: instant(5), used: 60 }],
            grants: Grants { version: 258, live: vec![grant(257, 70, None, 5), grant(258, 80, Some(8), 6)] },
            is_extended: true,
            own_quota: true,
            ..expected()
        };
        assert_eq!(Record::decode(&bytes), Some(record));
        for end in [41, 54, 61, 95, 109, bytes.len() - 1] {
            let cut = Record::decode(&bytes[..end]);
            assert_eq!(cut, None, "{end}");
        }
        assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn invalid_bytes_are_refused() {
        assert_eq!(Record::decode(&[]), None);
        assert_eq!(Record::decode(&BASE[..39]), None);
        assert_eq!(Record::decode(&[&[33], &BASE[1..]].concat()), None);
        assert_eq!(Record::decode(&[&BASE[..], &[0; 11]].concat()), None);
    }
}
