//! The tails of a record of format 2, which seeds and answers also have: windows and grants. Twin:
//! `lua/operation/tails.lua`.

use chrono::{DateTime, Utc};

use super::packed::{PutBytes, Reader};
use crate::domain::{
    ap::Ap,
    clock::instant,
    grant::{Grant, GrantNumber, Grants},
    window::{WindowKey, WindowState, WindowUnit},
};

/// Bits of the byte that says which tails follow.
pub(super) const WINDOWS: u8 = 1;
pub(super) const GRANTS: u8 = 2;
pub(super) const HOLDS: u8 = 4;

/// Packs windows.
pub(super) fn encode_windows(windows: &[WindowState], to: &mut Vec<u8>) {
    to.put_u8(count_of(windows));
    for window in windows {
        to.put_u16(window.key.minutes());
        to.put_u8(window.key.unit.code());
        to.put_u48(unix_ms(window.start));
        to.put_u32(window.used);
    }
}

/// Packs grants and their version.
pub(super) fn encode_grants(grants: &Grants, to: &mut Vec<u8>) {
    to.put_u48(grants.version);
    to.put_u8(count_of(&grants.live));
    for Grant { number, left, expires_at, priority } in &grants.live {
        to.put_u48(number.get());
        to.put_u32(left.get());
        to.put_u48(expires_at.map_or(0, unix_ms));
        to.put_u8(*priority);
    }
}

pub(super) fn windows(reader: &mut Reader<'_>) -> Option<Vec<WindowState>> {
    let count = reader.u8()?;
    (0..count)
        .map(|_| Some(WindowState { key: key(reader)?, start: time(reader.u48()?)?, used: reader.u32()? }))
        .collect()
}

pub(super) fn grants(reader: &mut Reader<'_>) -> Option<Grants> {
    let (version, count) = (reader.u48()?, reader.u8()?);
    let grant = |reader: &mut Reader<'_>| {
        Some(Grant {
            number: GrantNumber::new(reader.u48()?)?,
            left: Ap::new(reader.u32()?),
            expires_at: optional_time(reader.u48()?)?,
            priority: reader.u8()?,
        })
    };
    Some(Grants { version, live: (0..count).map(|_| grant(reader)).collect::<Option<_>>()? })
}

/// Reads length and unit of a window.
pub(super) fn key(reader: &mut Reader<'_>) -> Option<WindowKey> {
    let (minutes, unit) = (reader.u16()?, WindowUnit::from_code(reader.u8()?)?);
    WindowKey::new(minutes, unit).ok()
}

/// The time of these Unix milliseconds; the inner value is none for 0.
#[expect(clippy::option_option, reason = "invalid bytes differ from no time")]
pub(super) fn optional_time(unix_ms: u64) -> Option<Option<DateTime<Utc>>> {
    if unix_ms == 0 { Some(None) } else { time(unix_ms).map(Some) }
}

pub(super) fn time(unix_ms: u64) -> Option<DateTime<Utc>> {
    i64::try_from(unix_ms).ok().map(instant)
}

/// Unix milliseconds; instants before 1970 do not occur.
pub(super) fn unix_ms(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp_millis()).unwrap_or_default()
}

/// The count of a list in a packed string. Windows and live grants of a user are few.
fn count_of<T>(list: &[T]) -> u8 {
    debug_assert!(list.len() < 256);
    u8::try_from(list.len()).unwrap_or(u8::MAX)
}
