//! Time of day, for jobs that run once a day.

use std::{fmt, str::FromStr};

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

use super::InvalidInput;

/// A time of day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DailyAt(NaiveTime);

impl DailyAt {
    /// The next occurrence after `now`.
    #[must_use]
    pub fn next_after(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let today = now.date_naive().and_time(self.0).and_utc();
        if today > now { today } else { today + TimeDelta::days(1) }
    }
}

impl Default for DailyAt {
    /// 02:00.
    fn default() -> Self {
        Self(NaiveTime::MIN + TimeDelta::hours(2))
    }
}

impl FromStr for DailyAt {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        NaiveTime::parse_from_str(text, "%H:%M")
            .map(Self)
            .map_err(|_| InvalidInput::new("daily_at_utc", format!("must be a time as HH:MM, not {text:?}")))
    }
}

impl fmt::Display for DailyAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_is_today_or_tomorrow() {
        let at: DailyAt = "02:00".parse().unwrap();
        let next = |now: &str| at.next_after(now.parse().unwrap()).to_rfc3339();
        assert_eq!(next("2026-12-31T01:59:59Z"), "2026-12-31T02:00:00+00:00");
        assert_eq!(next("2026-12-31T02:00:00Z"), "2027-01-01T02:00:00+00:00");
        assert_eq!(next("2028-02-28T23:00:00Z"), "2028-02-29T02:00:00+00:00");
        assert!("25:00".parse::<DailyAt>().is_err());
        assert_eq!(at.to_string(), "02:00");
    }
}
