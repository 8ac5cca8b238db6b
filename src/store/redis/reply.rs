//! Output of the script. Twin: `lua/operation/answer.lua`.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::packed::Reader;
use super::record::Record;
use super::tails;
use crate::domain::{
    ap::Ap,
    calendar::Period,
    clock::instant,
    user_limits::{UserLimits, WindowUsage},
    window::Window,
};

/// Result of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyStatus {
    /// Done, or done before (see [`Answer::replayed`]).
    Ok,
    /// The quota does not cover it; nothing was changed.
    Denied,
    /// The hold may have been settled in another generation. Postgres must be asked.
    UnknownHold,
    /// The hold is over.
    Expired,
    /// The hold was already settled in another way.
    Settled,
    /// The key or hold was used for a different request.
    Mismatch,
    /// The user has the maximum number of live holds.
    TooManyHolds,
    /// The record is in an earlier period than the row.
    Behind,
    /// The usage stream has its maximum length.
    Shed,
    /// The user is blocked.
    Blocked,
}

/// The answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Result.
    pub status: ReplyStatus,
    /// Whether it was done before. `id`, `expires_at` and `pinned` are those of the first answer, the record is the
    /// present one.
    pub replayed: bool,
    /// Whether the hold had expired before it was committed.
    pub late: bool,
    /// Id of the hold; nil for an operation without a hold.
    pub id: Uuid,
    /// AP that a commit charged.
    pub charged: Ap,
    /// AP that a commit could not charge.
    pub overage: Ap,
    /// When the hold expires.
    pub expires_at: DateTime<Utc>,
    /// Generation and period of a replayed reservation, which may be older than the record.
    pub pinned: Option<(u32, Period)>,
    /// AP of grants: what a reservation holds of them, or what they paid of a commit.
    pub granted: Ap,
    /// When the hold was made, if the user has windows or grants.
    pub made_at: Option<DateTime<Utc>>,
    /// Limits beside the quota, and grants. Empty for most users.
    pub limits: UserLimits,
    /// The user's record after the operation.
    pub record: Record,
    /// Time of the operation, by Redis `TIME`.
    pub as_of: DateTime<Utc>,
}

const REPLAYED: u8 = 1;
const LATE: u8 = 2;
const DETAILED: u8 = 4;
const HOLDING: u8 = 8;
const PINNED: u8 = 16;
const LIMITS: u8 = 32;
const PARTS: u8 = 64;

/// Fields that only the answer to an operation on a hold has.
#[derive(Default)]
struct Details {
    id: Uuid,
    charged: Ap,
    overage: Ap,
    expiry_ms: u64,
}

/// The reply to one call.
pub(super) enum Reply<'a> {
    Answered { as_of_ms: u64, expired_holds: u16, answers: Answers<'a> },
    Stale,
    Skew { redis_ms: u64 },
}

/// The answers of a call, in the order of its operations.
pub(super) struct Answers<'a>(Reader<'a>);

impl<'a> Reply<'a> {
    /// Decodes a reply; none if it is malformed.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (kind, ms) = (reader.u8()?, reader.u48()?);
        match kind {
            0 => {
                let expired_holds = reader.u16()?;
                Some(Self::Answered { as_of_ms: ms, expired_holds, answers: Answers(reader) })
            }
            1 => Some(Self::Stale),
            2 => Some(Self::Skew { redis_ms: ms }),
            _ => None,
        }
    }
}

impl Answers<'_> {
    /// Skips the answer to a seed.
    pub(super) fn seeded(&mut self) -> Option<()> {
        (self.0.u8()? == 0).then_some(())
    }

    /// The next answer; none if the reply ends or is malformed, `Some(None)` for a missing record.
    #[expect(clippy::option_option, reason = "a malformed reply differs from a missing record")]
    pub(super) fn next(&mut self, as_of_ms: u64) -> Option<Option<Answer>> {
        let reader = &mut self.0;
        let status = match reader.u8()? {
            0 => ReplyStatus::Ok,
            1 => ReplyStatus::Denied,
            2 => return Some(None),
            3 => ReplyStatus::UnknownHold,
            4 => ReplyStatus::Expired,
            5 => ReplyStatus::Settled,
            6 => ReplyStatus::Mismatch,
            7 => ReplyStatus::TooManyHolds,
            8 => ReplyStatus::Behind,
            9 => ReplyStatus::Shed,
            10 => ReplyStatus::Blocked,
            _ => return None,
        };
        let flags = reader.u8()?;
        let mut details = Details::default();
        if flags & DETAILED != 0 {
            details = Details {
                id: reader.uuid()?,
                charged: Ap::new(reader.u32()?),
                overage: Ap::new(reader.u32()?),
                expiry_ms: reader.u48()?,
            };
        }
        let (granted, made_at) = if flags & PARTS == 0 {
            (Ap::ZERO, None)
        } else {
            (Ap::new(reader.u32()?), tails::optional_time(reader.u48()?)?)
        };
        let pinned =
            if flags & PINNED == 0 { None } else { Some((reader.u32()?, Period::from_code(reader.u24()?).ok()?.0)) };
        let (held, holds) = if flags & HOLDING == 0 { (0, 0) } else { (reader.u32()?, reader.u8()?) };
        let mut record = Record::decode_base(reader)?;
        record.held = Ap::new(held);
        for _ in 0..holds {
            record.decode_hold(reader)?;
        }
        let limits = if flags & LIMITS == 0 { UserLimits::default() } else { decode_limits(reader)? };
        record.held_granted = limits.held_granted;
        Some(Some(Answer {
            status,
            replayed: flags & REPLAYED != 0,
            late: flags & LATE != 0,
            id: details.id,
            charged: details.charged,
            overage: details.overage,
            expires_at: instant_of(details.expiry_ms),
            pinned,
            granted,
            made_at,
            limits,
            record,
            as_of: instant_of(as_of_ms),
        }))
    }
}

fn decode_limits(reader: &mut Reader<'_>) -> Option<UserLimits> {
    let (concurrency, live_holds) = (reader.u8()?, reader.u8()?);
    let hold_ends_at = tails::optional_time(reader.u48()?)?;
    let count = reader.u8()?;
    let window = |reader: &mut Reader<'_>| {
        Some(WindowUsage {
            window: Window { key: tails::key(reader)?, limit: reader.u32()? },
            start: tails::optional_time(reader.u48()?)?,
            used: reader.u32()?,
            held: reader.u32()?,
        })
    };
    let windows = (0..count).map(|_| window(reader)).collect::<Option<_>>()?;
    let (held_granted, granted_free) = (Ap::new(reader.u32()?), Ap::new(reader.u32()?));
    Some(UserLimits {
        windows,
        concurrency: (concurrency > 0).then_some(concurrency),
        live_holds,
        hold_ends_at,
        grants: tails::grants(reader)?,
        held_granted,
        granted_free,
    })
}

fn instant_of(unix_ms: u64) -> DateTime<Utc> {
    instant(i64::try_from(unix_ms).unwrap_or_default())
}
