//! A window of a level: AP or requests in a time shorter than the period. It begins with its first use and ends after
//! its length.

use std::fmt;

use crate::domain::InvalidInput;

/// A limit for a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    minutes: u16,
    unit: WindowUnit,
    limit: u32,
}

/// What a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowUnit {
    /// Charged AP.
    Ap,
    /// Messages, also those that cost nothing.
    Requests,
}

impl Window {
    /// Creates a window from its settings, for example `every = "5h", ap = 80`.
    ///
    /// # Errors
    /// If `every` is not a number of minutes, hours or days up to 31 days, or not exactly one of `ap` and `requests` is
    /// given and at least 1.
    pub fn new(every: &str, ap: Option<u32>, requests: Option<u32>) -> Result<Self, InvalidInput> {
        let minutes = minutes(every).ok_or_else(|| {
            let rule = format!("must be a length such as \"1m\", \"5h\" or \"7d\", at most \"31d\", not {every:?}");
            InvalidInput::new("every", rule)
        })?;
        let (unit, limit) = match (ap, requests) {
            (Some(limit), None) => (WindowUnit::Ap, limit),
            (None, Some(limit)) => (WindowUnit::Requests, limit),
            _ => return Err(InvalidInput::new("windows", "needs exactly one of `ap` and `requests`")),
        };
        if limit == 0 {
            return Err(InvalidInput { field: unit.as_str(), rule: "must be at least 1".into() });
        }
        Ok(Self { minutes, unit, limit })
    }

    /// What identifies the window's use: a user keeps it when the limit changes.
    #[must_use]
    pub const fn key(&self) -> (u16, WindowUnit) {
        (self.minutes, self.unit)
    }

    /// The length in milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> i64 {
        i64::from(self.minutes) * 60_000
    }

    /// What it counts.
    #[must_use]
    pub const fn unit(&self) -> WindowUnit {
        self.unit
    }

    /// How much may be used in its length.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The length as in the configuration, in the largest unit that has no fraction.
    #[must_use]
    pub fn every(&self) -> String {
        match self.minutes {
            minutes if minutes % DAY == 0 => format!("{}d", minutes / DAY),
            minutes if minutes % HOUR == 0 => format!("{}h", minutes / HOUR),
            minutes => format!("{minutes}m"),
        }
    }
}

impl WindowUnit {
    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ap => "ap",
            Self::Requests => "requests",
        }
    }
}

impl fmt::Display for Window {
    /// Formats as `5h ap`, without the limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.every(), self.unit.as_str())
    }
}

const HOUR: u16 = 60;
const DAY: u16 = 24 * HOUR;

/// Longer windows would need a log that is kept for longer.
const MINUTES_MAX: u16 = 31 * DAY;

/// Parses a length.
fn minutes(every: &str) -> Option<u16> {
    let unit = match every.chars().last()? {
        'm' => 1,
        'h' => HOUR,
        'd' => DAY,
        _ => return None,
    };
    let number = &every[..every.len() - 1];
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let minutes = number.parse::<u16>().ok().filter(|_| is_number)?.checked_mul(unit)?;
    (1..=MINUTES_MAX).contains(&minutes).then_some(minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_and_written_as_in_the_configuration() {
        for (given, shown) in
            [("1m", "1m"), ("90m", "90m"), ("60m", "1h"), ("5h", "5h"), ("24h", "1d"), ("7d", "7d"), ("31d", "31d")]
        {
            let window = Window::new(given, Some(80), None).unwrap();
            assert_eq!(window.to_string(), format!("{shown} ap"), "{given}");
        }
        assert_eq!(Window::new("5h", None, Some(2)).unwrap().length_ms(), 5 * 3_600_000);
    }

    #[test]
    fn other_lengths_and_limits_are_refused() {
        for every in ["", "5", "h", "0m", "-1h", "+1h", "1.5h", "32d", "99999d", "1w", "5 h", "5é"] {
            assert!(Window::new(every, Some(1), None).is_err(), "{every:?}");
        }
        for (ap, requests) in [(None, None), (Some(1), Some(1)), (Some(0), None), (None, Some(0))] {
            assert!(Window::new("1h", ap, requests).is_err(), "{ap:?} {requests:?}");
        }
    }
}
