//! SQL integers for the gate's unsigned numbers. SQL has no unsigned types.

use crate::domain::meter::MeterCode;

/// Converts to `integer`. A number that is too large becomes the largest one.
pub(in crate::store::postgres) fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Converts to `smallint`. A number that is too large becomes the largest one.
pub(in crate::store::postgres) fn smallint(number: u16) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

/// Converts a count. SQL's are signed.
pub(in crate::store::postgres) fn as_count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// Reads the code of a meter.
pub(in crate::store::postgres) fn meter_of(code: i16) -> Option<MeterCode> {
    u8::try_from(code).ok().map(MeterCode::new)
}
