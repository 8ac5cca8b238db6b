//! Windows: limits of a level that are shorter than its period. A window begins with the first charge or hold that it
//! counts, and ends after its length.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::InvalidInput;

/// What a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowUnit {
    /// AP that the level's quota pays. What grants pay is not counted.
    Ap,
    /// Messages, also those of 0 AP.
    Requests,
}

/// What identifies a window of a level: its length and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowKey {
    minutes: u16,
    /// What it counts.
    pub unit: WindowUnit,
}

/// A window of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Length and unit.
    pub key: WindowKey,
    /// Maximum that it counts.
    pub limit: u32,
}

/// A window of a user that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowState {
    /// Length and unit.
    pub key: WindowKey,
    /// When it began.
    pub start: DateTime<Utc>,
    /// What it has counted.
    pub used: u32,
}

/// What a charge counted in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowCount {
    /// Length and unit.
    pub key: WindowKey,
    /// When the window began.
    pub start: DateTime<Utc>,
    /// What it counted.
    pub counted: u32,
}

/// The limits of a level beside its quota.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LevelLimits {
    windows: Vec<Window>,
    concurrency: Option<u8>,
}

impl WindowUnit {
    /// The number of the unit in Redis and Postgres.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ap => 1,
            Self::Requests => 2,
        }
    }

    /// The unit with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Ap),
            2 => Some(Self::Requests),
            _ => None,
        }
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ap => "ap",
            Self::Requests => "requests",
        }
    }
}

impl WindowKey {
    /// Maximum length: 31 days. The log must be kept for longer, because windows are rebuilt from it after a loss.
    pub const MINUTES_MAX: u16 = 31 * 24 * 60;

    /// Creates the key of a window of 1 minute to 31 days.
    ///
    /// # Errors
    /// If the length is out of range.
    pub fn new(minutes: u16, unit: WindowUnit) -> Result<Self, InvalidInput> {
        if (1..=Self::MINUTES_MAX).contains(&minutes) {
            Ok(Self { minutes, unit })
        } else {
            Err(InvalidInput::new("windows.every", "must be from \"1m\" to \"31d\""))
        }
    }

    /// Parses a length: a number of minutes, hours or days, for example `30m`, `5h` or `7d`.
    ///
    /// # Errors
    /// If the text is not such a length, or it is out of range.
    pub fn parse(every: &str, unit: WindowUnit) -> Result<Self, InvalidInput> {
        let wrong = || {
            InvalidInput::new(
                "windows.every",
                format!("must be a length such as \"30m\", \"5h\" or \"7d\", at most \"31d\", not {every:?}"),
            )
        };
        let digits = every.trim_end_matches(['m', 'h', 'd']);
        let minutes_each = match &every[digits.len()..] {
            "m" => 1,
            "h" => 60,
            "d" => 24 * 60,
            _ => return Err(wrong()),
        };
        let minutes =
            digits.parse::<u16>().ok().and_then(|number| number.checked_mul(minutes_each)).ok_or_else(wrong)?;
        Self::new(minutes, unit).map_err(|_| wrong())
    }

    /// The length in minutes.
    #[must_use]
    pub const fn minutes(self) -> u16 {
        self.minutes
    }

    /// The length.
    #[must_use]
    pub fn length(self) -> TimeDelta {
        TimeDelta::minutes(self.minutes.into())
    }

    /// The length as `parse` reads it, in its largest whole unit.
    #[must_use]
    pub fn every(self) -> String {
        match self.minutes {
            minutes if minutes % (24 * 60) == 0 => format!("{}d", minutes / (24 * 60)),
            minutes if minutes % 60 == 0 => format!("{}h", minutes / 60),
            minutes => format!("{minutes}m"),
        }
    }
}

impl LevelLimits {
    /// Maximum windows of a level. Each message of a user with windows reads all of them.
    pub const WINDOWS_MAX: usize = 8;

    /// Creates the limits of a level.
    ///
    /// # Errors
    /// If there are too many windows, two have the same length and unit, a limit is 0 or too large, or `concurrency`
    /// is not 1 to 64.
    pub fn new(mut windows: Vec<Window>, concurrency: Option<u8>) -> Result<Self, InvalidInput> {
        if windows.len() > Self::WINDOWS_MAX {
            return Err(InvalidInput::new("windows", format!("must be at most {} windows", Self::WINDOWS_MAX)));
        }
        windows.sort_by_key(|window| window.key);
        if let Some(twice) = windows.windows(2).find(|two| two[0].key == two[1].key) {
            let key = twice[0].key;
            let rule = format!("every {} in {} appears twice; keep one of them", key.every(), key.unit.as_str());
            return Err(InvalidInput::new("windows", rule));
        }
        // A sum of what is used and held must fit into four bytes.
        if let Some(window) = windows.iter().find(|window| window.limit == 0 || i32::try_from(window.limit).is_err()) {
            let rule = format!("must be a limit of 1 to {} per {}", i32::MAX, window.key.every());
            return Err(InvalidInput::new("windows", rule));
        }
        let holds_max = super::hold::HOLDS_PER_USER_MAX;
        if concurrency.is_some_and(|count| count == 0 || usize::from(count) > holds_max) {
            return Err(InvalidInput::new("concurrency", format!("must be a whole number from 1 to {holds_max}")));
        }
        Ok(Self { windows, concurrency })
    }

    /// Creates limits from the text that [`windows_text`](Self::windows_text) writes.
    ///
    /// # Errors
    /// If the text is not one, or [`new`](Self::new) refuses the limits.
    pub fn parse(windows: &str, concurrency: Option<u8>) -> Result<Self, InvalidInput> {
        let window = |text: &str| {
            let wrong = || InvalidInput::new("windows", format!("must be like \"5h ap 80\", not {text:?}"));
            let [every, unit, limit] = *text.split(' ').collect::<Vec<_>>() else { return Err(wrong()) };
            let unit = [WindowUnit::Ap, WindowUnit::Requests].into_iter().find(|known| known.as_str() == unit);
            let key = WindowKey::parse(every, unit.ok_or_else(wrong)?)?;
            Ok(Window { key, limit: limit.parse().map_err(|_| wrong())? })
        };
        let windows = windows.split(", ").filter(|text| !text.is_empty()).map(window);
        Self::new(windows.collect::<Result<_, _>>()?, concurrency)
    }

    /// The windows as a text, for example `5h ap 80, 1m requests 20`; empty for none.
    #[must_use]
    pub fn windows_text(&self) -> String {
        let text = |window: &Window| format!("{} {} {}", window.key.every(), window.key.unit.as_str(), window.limit);
        self.windows.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    /// Length of the longest window in minutes; 0 without windows.
    #[must_use]
    pub fn longest_minutes(&self) -> u16 {
        self.windows.iter().map(|window| window.key.minutes()).max().unwrap_or_default()
    }

    /// The windows, shortest first.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Maximum live holds of a user, if limited.
    #[must_use]
    pub const fn concurrency(&self) -> Option<u8> {
        self.concurrency
    }

    /// Whether the level has no limits beside its quota.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.concurrency.is_none()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.key.unit {
            WindowUnit::Ap => "AP",
            WindowUnit::Requests => "requests",
        };
        write!(f, "{} {unit} every {}", self.limit, self.key.every())
    }
}

/// The limits as a list, to follow the quota of a level; nothing for none.
impl fmt::Display for LevelLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for window in &self.windows {
            write!(f, ", {window}")?;
        }
        self.concurrency.map_or(Ok(()), |count| write!(f, ", {count} concurrent"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minutes_hours_or_days() {
        for (text, minutes) in [("1m", 1), ("90m", 90), ("5h", 300), ("7d", 10_080), ("31d", 44_640)] {
            assert_eq!(WindowKey::parse(text, WindowUnit::Ap).map(WindowKey::minutes), Ok(minutes), "{text}");
        }
        for refused in ["", "m", "0m", "5", "5s", "5hh", "-5h", "32d", "1.5h", "99999d", "5 h", "５h"] {
            assert!(WindowKey::parse(refused, WindowUnit::Ap).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_length_is_written_in_its_largest_whole_unit() {
        for text in ["1m", "90m", "5h", "36h", "7d"] {
            assert_eq!(WindowKey::parse(text, WindowUnit::Requests).unwrap().every(), text);
        }
        assert_eq!(WindowKey::parse("48h", WindowUnit::Ap).unwrap().every(), "2d");
    }

    #[test]
    fn limits_must_be_possible() {
        let window = |every, unit, limit| Window { key: WindowKey::parse(every, unit).unwrap(), limit };
        let (ap, requests) = (window("5h", WindowUnit::Ap, 80), window("5h", WindowUnit::Requests, 80));
        let limits = LevelLimits::new(vec![requests, ap], Some(64)).unwrap();
        assert_eq!(limits.windows(), [ap, requests]);
        assert_eq!(limits.windows_text(), "5h ap 80, 5h requests 80");
        assert_eq!(LevelLimits::parse(&limits.windows_text(), Some(64)).unwrap(), limits);
        assert_eq!(LevelLimits::parse("", None).unwrap(), LevelLimits::default());
        assert!(LevelLimits::parse("5h ap", None).is_err() && LevelLimits::parse("5h tokens 8", None).is_err());
        assert_eq!(limits.to_string(), ", 80 AP every 5h, 80 requests every 5h, 64 concurrent");
        assert!(LevelLimits::new(vec![ap, ap], None).is_err());
        assert!(LevelLimits::new(vec![window("5h", WindowUnit::Ap, 0)], None).is_err());
        assert!(LevelLimits::new(vec![], Some(0)).is_err() && LevelLimits::new(vec![], Some(65)).is_err());
        assert!(LevelLimits::default().is_empty());
    }
}
