//! Windows in the log: the column `chat_usage_logs.windows`, and what the SQL function `newest_windows` sums up.

use crate::domain::{
    clock::instant,
    window::{WindowCount, WindowKey, WindowState, WindowUnit},
};

/// Fields of a window in the list: minutes, unit, start in ms, sum.
const FIELDS: usize = 4;

/// Returns the value of the column, `None` for a charge that counted in no window. The migration describes the format.
pub(in crate::store::postgres) fn column(windows: &[WindowCount]) -> Option<Vec<u8>> {
    if windows.is_empty() {
        return None;
    }
    let mut packed = Vec::with_capacity(13 * windows.len());
    for count in windows {
        packed.extend_from_slice(&count.key.minutes().to_be_bytes());
        packed.push(count.key.unit.code());
        packed.extend_from_slice(&count.start.timestamp_millis().to_be_bytes()[2..]);
        packed.extend_from_slice(&count.counted.to_be_bytes());
    }
    Some(packed)
}

/// Returns the windows of a list; `None` if a number is out of its range.
pub(in crate::store::postgres) fn parse(list: Option<Vec<i64>>) -> Option<Vec<WindowState>> {
    let window = |fields: &[i64]| {
        let &[minutes, unit, start_ms, sum] = fields else { return None };
        let unit = WindowUnit::from_code(u8::try_from(unit).ok()?)?;
        Some(WindowState {
            key: WindowKey::new(u16::try_from(minutes).ok()?, unit).ok()?,
            start: instant(start_ms),
            used: u32::try_from(sum).ok()?,
        })
    };
    list.unwrap_or_default().chunks(FIELDS).map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_four_numbers_for_each_window() {
        let key = |minutes, unit| WindowKey::new(minutes, unit).unwrap();
        let windows = parse(Some(vec![300, 1, 1_000, 5, 1, 2, 2_000, 6])).unwrap();
        let state = |key, start_ms, used| WindowState { key, start: instant(start_ms), used };
        assert_eq!(windows, [state(key(300, WindowUnit::Ap), 1_000, 5), state(key(1, WindowUnit::Requests), 2_000, 6)]);
        assert_eq!(parse(None), Some(vec![]));
        for wrong in [vec![300, 1, 1_000], vec![0, 1, 1, 1], vec![300, 3, 1, 1], vec![300, 1, 1, -1]] {
            assert_eq!(parse(Some(wrong)), None);
        }
    }
}
