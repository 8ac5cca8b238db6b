//! Compares a user's windows in Redis with the log and the journal after the watermark.
//!
//! A window of the record has counted what the charges say that name it by length, unit and start. A window in which
//! nothing is counted yet is of a hold alone. One that is over is gone from the record, or stays until the next change.
//! The log is read only as far back as a window can last before the row's last change. A window that was over by then
//! is not compared.

use crate::{
    domain::{
        clock::instant,
        usage::UsageEvent,
        window::{WindowCount, WindowKey, WindowState},
    },
    store::{postgres::QuotaRow, redis::Record},
};

/// A window of which Redis has counted another amount than the journal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowDifference {
    /// Length and unit.
    pub key: WindowKey,
    /// Start in ms and what was counted, by the record and by Postgres plus what is not flushed; 0 for no window.
    pub counted: ((i64, u32), (i64, u32)),
}

/// Adds the counts of an event to windows: of each key, the newest window.
pub(super) fn add(windows: &mut Vec<WindowState>, event: &UsageEvent) {
    for &WindowCount { key, start, counted } in &event.windows {
        match windows.iter_mut().find(|window| window.key == key) {
            None => windows.push(WindowState { key, start, used: counted }),
            Some(window) if window.start == start => window.used += counted,
            Some(window) if window.start < start => (window.start, window.used) = (start, counted),
            Some(_) => {}
        }
    }
}

/// Returns the windows that differ. `unflushed` are those of the journal after the watermark.
pub(super) fn differences(
    row: &QuotaRow,
    record: &Record,
    generation: u32,
    unflushed: &[WindowState],
) -> Vec<WindowDifference> {
    // The next access merges a record of an older generation with the log.
    if record.generation != generation {
        return Vec::new();
    }
    let of = |windows: &[WindowState], key| windows.iter().find(|window| window.key == key).copied();
    let mut keys: Vec<WindowKey> =
        [&row.windows[..], unflushed, &record.windows[..]].into_iter().flatten().map(|window| window.key).collect();
    keys.sort();
    keys.dedup();
    let numbers =
        |window: Option<WindowState>| window.map_or((0, 0), |window| (window.start.timestamp_millis(), window.used));
    let differs = |key: &WindowKey| {
        let journalled = newest(of(&row.windows, *key), of(unflushed, *key));
        let recorded = of(&record.windows, *key);
        let is_over = journalled.is_none_or(|window| {
            let end_ms = (window.start + key.length()).timestamp_millis();
            u64::try_from(end_ms).unwrap_or(0) <= record.version
        });
        let agrees = match recorded {
            Some(window) if window.start + key.length() <= row.updated_at => true,
            Some(window) if window.used > 0 => journalled == recorded,
            // The window of a hold begins after the last one that has counted.
            Some(_) | None => is_over,
        };
        (!agrees).then(|| WindowDifference { key: *key, counted: (numbers(recorded), numbers(journalled)) })
    };
    keys.iter().filter_map(differs).collect()
}

/// What Redis has counted in these windows and the log has not.
pub(super) fn missing_in_log(differences: &[WindowDifference]) -> Vec<WindowCount> {
    let missing = |found: &WindowDifference| {
        let ((start_ms, used), (logged_start_ms, logged)) = found.counted;
        let counted = used.saturating_sub(if start_ms == logged_start_ms { logged } else { 0 });
        (counted > 0).then(|| WindowCount { key: found.key, start: instant(start_ms), counted })
    };
    differences.iter().filter_map(missing).collect()
}

/// The later of two windows, or their sum if they are the same one.
fn newest(logged: Option<WindowState>, unflushed: Option<WindowState>) -> Option<WindowState> {
    match (logged, unflushed) {
        (Some(one), Some(other)) if one.start == other.start => {
            Some(WindowState { used: one.used + other.used, ..one })
        }
        (Some(one), Some(other)) => Some(if one.start > other.start { one } else { other }),
        (one, other) => one.or(other),
    }
}
