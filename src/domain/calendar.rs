//! Periods and days: calendar months and days in the product's time zone.
//!
//! Redis has the clock that decides but no calendar; the gate has a calendar. So the gate sends [`Bounds`]: the period
//! and day of one minute ago, their ends, and the next period and day. The script refuses a call if the two clocks
//! differ by more than that minute, so Redis `TIME` always falls into one of the two.

use std::fmt;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::InvalidInput;

/// Maximum difference between the clocks of a gate and of Redis.
pub const SKEW_MAX: TimeDelta = TimeDelta::minutes(1);

/// A calendar month, as a number `YYYYMM`: `202611`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u32);

/// A calendar day, as days since 1970-01-01. Its two bytes in a record suffice until 2149.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u16);

/// Converts instants to periods and days in one time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    time_zone: Tz,
}

/// The two periods and two days that Redis `TIME` can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Period one minute ago.
    pub period: Period,
    /// End of that period and start of the next.
    pub period_end: DateTime<Utc>,
    /// The next period.
    pub next_period: Period,
    /// Day one minute ago.
    pub day: Day,
    /// End of that day and start of the next.
    pub day_end: DateTime<Utc>,
    /// The next day.
    pub next_day: Day,
}

impl Period {
    /// Parses `YYYYMM`.
    ///
    /// # Errors
    /// If the number is not a month of the years 1970 to 9999.
    pub fn from_id(id: u32) -> Result<Self, InvalidInput> {
        let (year, month) = (id / 100, id % 100);
        if (1970..=9999).contains(&year) && (1..=12).contains(&month) {
            Ok(Self(id))
        } else {
            Err(InvalidInput::new("period", format!("must be a month as YYYYMM, not {id}")))
        }
    }

    fn of(date: NaiveDate) -> Self {
        // Dates here come from instants of this era, so the year is not negative.
        Self(date.year().unsigned_abs() * 100 + date.month())
    }

    /// The number `YYYYMM`.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0
    }

    /// The month after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self::of(self.first_day() + Months::new(1))
    }

    /// The month before this one.
    #[must_use]
    pub fn previous(self) -> Self {
        Self::of(self.first_day() - Months::new(1))
    }

    /// The first day of the month.
    #[must_use]
    pub fn first_day(self) -> NaiveDate {
        let year = i32::try_from(self.0 / 100).unwrap_or(1970);
        NaiveDate::from_ymd_opt(year, self.0 % 100, 1).unwrap_or_default()
    }
}

impl From<Period> for i32 {
    /// The number `YYYYMM`, for Postgres.
    fn from(period: Period) -> Self {
        period.0.cast_signed()
    }
}

impl fmt::Display for Period {
    /// Formats as `2026-11`, for people and JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Day {
    /// Creates a day from the number of days since 1970-01-01.
    #[must_use]
    pub const fn from_number(days: u16) -> Self {
        Self(days)
    }

    fn of(date: NaiveDate) -> Self {
        let days = (date - NaiveDate::default()).num_days();
        Self(u16::try_from(days).unwrap_or_default())
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The day as a date.
    #[must_use]
    pub fn date(self) -> NaiveDate {
        NaiveDate::default() + Days::new(self.0.into())
    }
}

impl Calendar {
    /// Creates a calendar for a time zone.
    #[must_use]
    pub const fn new(time_zone: Tz) -> Self {
        Self { time_zone }
    }

    /// The time zone that determines when days begin.
    #[must_use]
    pub const fn time_zone(self) -> Tz {
        self.time_zone
    }

    /// The period of an instant.
    #[must_use]
    pub fn period_at(self, at: DateTime<Utc>) -> Period {
        Period::of(at.with_timezone(&self.time_zone).date_naive())
    }

    /// The day of an instant.
    #[must_use]
    pub fn day_at(self, at: DateTime<Utc>) -> Day {
        Day::of(at.with_timezone(&self.time_zone).date_naive())
    }

    /// The first instant of a period.
    #[must_use]
    pub fn period_start(self, period: Period) -> DateTime<Utc> {
        self.midnight(period.first_day())
    }

    /// The first instant after a period: when its quota resets.
    #[must_use]
    pub fn period_end(self, period: Period) -> DateTime<Utc> {
        self.period_start(period.next())
    }

    /// The first instant of a day.
    #[must_use]
    pub fn day_start(self, day: Day) -> DateTime<Utc> {
        self.midnight(day.date())
    }

    /// The calendar around `now`, to send to Redis.
    #[must_use]
    pub fn bounds_at(self, now: DateTime<Utc>) -> Bounds {
        let earliest = now - SKEW_MAX;
        let (period, day) = (self.period_at(earliest), self.day_at(earliest));
        let next_day = Day::of(day.date() + Days::new(1));
        Bounds {
            period,
            period_end: self.period_end(period),
            next_period: period.next(),
            day,
            day_end: self.day_start(next_day),
            next_day,
        }
    }

    /// The first instant of a date. If the clocks jump over midnight, the day begins after the jump.
    fn midnight(self, date: NaiveDate) -> DateTime<Utc> {
        let midnight = date.and_time(NaiveTime::MIN);
        // No time zone has jumped by more than one day (Samoa, 2011).
        (0..=48)
            .find_map(|half_hours| {
                self.time_zone.from_local_datetime(&(midnight + TimeDelta::minutes(30 * half_hours))).earliest()
            })
            .map_or_else(|| midnight.and_utc(), |local| local.to_utc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn calendar(zone: &str) -> Calendar {
        Calendar::new(zone.parse().unwrap())
    }

    #[test]
    fn a_period_ends_when_the_next_month_begins() {
        let cases = [
            ("UTC", "2026-11-23T12:00:00Z", 202_611, "2026-12-01T00:00:00Z"),
            ("UTC", "2026-12-31T23:59:59.999Z", 202_612, "2027-01-01T00:00:00Z"),
            ("UTC", "2027-01-01T00:00:00Z", 202_701, "2027-02-01T00:00:00Z"),
            ("UTC", "2028-02-29T12:00:00Z", 202_802, "2028-03-01T00:00:00Z"),
            ("UTC", "2027-02-28T23:59:59Z", 202_702, "2027-03-01T00:00:00Z"),
            ("Asia/Shanghai", "2026-11-30T16:00:00Z", 202_612, "2026-12-31T16:00:00Z"),
            ("Asia/Shanghai", "2026-11-30T15:59:59Z", 202_611, "2026-11-30T16:00:00Z"),
            ("America/New_York", "2026-11-01T03:59:59Z", 202_610, "2026-11-01T04:00:00Z"),
            ("America/New_York", "2026-11-01T04:00:00Z", 202_611, "2026-12-01T05:00:00Z"),
        ];
        for (zone, at, period, end) in cases {
            let calendar = calendar(zone);
            assert_eq!(calendar.period_at(utc(at)).id(), period, "{zone} {at}");
            assert_eq!(calendar.period_end(Period::from_id(period).unwrap()), utc(end), "{zone} {at}");
        }
    }

    #[test]
    fn a_day_begins_after_a_jump_over_midnight() {
        // Lebanon moves its clocks at midnight: 2026-03-29 begins at 01:00 local time.
        let beirut = calendar("Asia/Beirut");
        let day = beirut.day_at(utc("2026-03-29T12:00:00Z"));
        assert_eq!(beirut.day_start(day), utc("2026-03-28T22:00:00Z"));
        assert_eq!(beirut.day_at(beirut.day_start(day)), day);
    }

    #[test]
    fn bounds_cover_every_instant_within_the_allowed_skew() {
        for zone in ["UTC", "Asia/Shanghai", "America/New_York"] {
            let calendar = calendar(zone);
            for end in ["2026-11-30T23:59:30Z", "2026-12-01T00:00:00Z", "2026-12-31T16:00:40Z", "2028-03-01T05:00:00Z"]
            {
                let now = utc(end);
                let bounds = calendar.bounds_at(now);
                for offset in [-60_000, -1, 0, 1, 60_000] {
                    let redis = now + TimeDelta::milliseconds(offset);
                    let period = if redis < bounds.period_end { bounds.period } else { bounds.next_period };
                    let day = if redis < bounds.day_end { bounds.day } else { bounds.next_day };
                    assert_eq!((period, day), (calendar.period_at(redis), calendar.day_at(redis)), "{zone} {redis}");
                }
            }
        }
    }

    #[test]
    fn periods_cross_year_ends() {
        let december = Period::from_id(202_612).unwrap();
        assert_eq!(december.next().id(), 202_701);
        assert_eq!(december.next().previous(), december);
        assert_eq!(december.to_string(), "2026-12");
        for id in [0, 202_600, 202_613, 196_912, 1_000_001] {
            assert!(Period::from_id(id).is_err(), "{id}");
        }
    }
}
