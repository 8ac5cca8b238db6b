//! Formats numbers for readers.

use std::time::Duration;

/// `162,340`
pub(crate) fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let mut text = String::from(sign);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.82`
pub(crate) fn ratio(number: f64) -> String {
    if number >= 100.0 { whole(number) } else { format!("{number:.2}") }
}

/// `68 µs`, `2.7 ms`, `1.4 s`
pub(crate) fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        ..10.0 => format!("{us:.1} µs"),
        ..1_000.0 => format!("{us:.0} µs"),
        ..10_000.0 => format!("{:.1} ms", us / 1e3),
        ..1_000_000.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

/// Converts a count that is far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "a count that is far below 2^52")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}
