//! Periods and days, in the product's time zone.
//!
//! A user's period begins on a day and ends on the first anchor date that is at least 28 days later. The anchor date of
//! a month is the user's anchor day, or the last day of a shorter month. With anchor day 1, a period is a calendar
//! month. After a change of anchor day, one period has 28 to 59 days. So no sequence of changes begins two periods
//! within 28 days.
//!
//! Redis has the clock that decides but no calendar; the gate has a calendar. So the gate sends [`Bounds`]: the day of
//! one minute ago, its end, and the months around it. The script refuses a call if the two clocks differ by more than
//! that minute, so Redis `TIME` always falls into that day or the next one.

use std::fmt;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::InvalidInput;

/// Maximum difference between the clocks of a gate and of Redis.
pub const SKEW_MAX: TimeDelta = TimeDelta::minutes(1);

/// A user's period, known by its first day. Periods are ordered by it.
///
/// Its number is `YYYYMM` if it begins on the first of a month, else `YYYYMMDD`: `202611`, `20261117`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(NaiveDate);

/// The day of the month on which a user's periods begin, 1 to 31. In a shorter month it is the last day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnchorDay(u8);

/// A calendar day, as days since 1970-01-01. Its two bytes in a record suffice until 2149.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u16);

/// Converts instants to periods and days in one time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    time_zone: Tz,
}

/// The two days that Redis `TIME` can be in, and their months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Day one minute ago.
    pub day: Day,
    /// End of that day and start of the next.
    pub day_end: DateTime<Utc>,
    /// Day of the month, from 1.
    pub day_of_month: u8,
    /// The calendar month of that day.
    pub month: Period,
    /// The month after it.
    pub next_month: Period,
    /// Days of the month before it, of it, and of the month after it.
    pub month_lengths: [u8; 3],
}

/// A period must begin at least this many days after the one before it.
const PERIOD_DAYS_MIN: i64 = 28;
/// Maximum days of a period: the minimum, and the longest month until the next anchor date.
pub const PERIOD_DAYS_MAX: u16 = 59;
/// Set in a period code that is not a calendar month.
const CODE_FLAG: u32 = 1 << 23;

impl Period {
    /// Parses `YYYYMM` or `YYYYMMDD`.
    ///
    /// # Errors
    /// If the number is not a month or a day of the years 1970 to 9999. The first of a month has only the short form.
    pub fn from_id(id: u32) -> Result<Self, InvalidInput> {
        let (month, day) = if id < 1_000_000 { (id, 1) } else { (id / 100, id % 100) };
        let year = i32::try_from(month / 100).ok().filter(|year| (1970..=9999).contains(year));
        let date = year.and_then(|year| NaiveDate::from_ymd_opt(year, month % 100, day));
        date.map(Self).filter(|period| period.id() == id).ok_or_else(|| {
            InvalidInput::new("period", format!("must be a month as YYYYMM or a day as YYYYMMDD, not {id}"))
        })
    }

    /// The calendar month of a date.
    fn month_of(date: NaiveDate) -> Self {
        Self(date.with_day(1).unwrap_or(date))
    }

    /// The number `YYYYMM` or `YYYYMMDD`.
    #[must_use]
    pub fn id(self) -> u32 {
        // Dates here come from instants of this era, so the year is not negative.
        let month = self.0.year().unsigned_abs() * 100 + self.0.month();
        if self.0.day() == 1 { month } else { month * 100 + self.0.day() }
    }

    /// The period that begins on a day.
    #[must_use]
    pub fn beginning_on(day: Day) -> Self {
        Self(day.date())
    }

    /// The period after this one.
    #[must_use]
    pub fn next(self, anchor_day: AnchorDay) -> Self {
        let earliest = self.0 + Days::new(PERIOD_DAYS_MIN.unsigned_abs());
        let date = anchor_day.in_month_of(earliest);
        Self(if date >= earliest { date } else { anchor_day.in_month_of(first_of_next_month(earliest)) })
    }

    /// The calendar month before the one in which this period begins.
    #[must_use]
    pub fn month_before(self) -> Self {
        Self(Self::month_of(self.0).0 - Months::new(1))
    }

    /// The period on `today` of a user who was in this one: the one that begins on the newest anchor date, if that is
    /// at least 28 days after this one began. Periods that passed without use are skipped.
    #[must_use]
    pub fn at(self, today: Day, anchor_day: AnchorDay) -> Self {
        let newest = anchor_day.newest(today.date());
        if (newest - self.0).num_days() >= PERIOD_DAYS_MIN { Self(newest) } else { self }
    }

    /// The first day.
    #[must_use]
    pub const fn first_day(self) -> NaiveDate {
        self.0
    }

    /// The number that stands for a user's period and anchor day in Redis, of three bytes: `YYYYMM` for a calendar
    /// month of anchor day 1 (decision 0022).
    #[must_use]
    pub fn code(self, anchor_day: AnchorDay) -> u32 {
        if self.0.day() == 1 && anchor_day == AnchorDay::FIRST {
            return self.id();
        }
        CODE_FLAG | u32::from(anchor_day.0) << 16 | u32::from(Day::of(self.0).0)
    }

    /// Reads a [`code`](Self::code).
    ///
    /// # Errors
    /// If the number is not one.
    pub fn from_code(code: u32) -> Result<(Self, AnchorDay), InvalidInput> {
        if code & CODE_FLAG == 0 {
            return Ok((Self::from_id(code)?, AnchorDay::FIRST));
        }
        let [_, anchor_day, day @ ..] = (code & !CODE_FLAG).to_be_bytes();
        Ok((Self(Day(u16::from_be_bytes(day)).date()), AnchorDay::new(anchor_day)?))
    }
}

impl AnchorDay {
    /// The first of the month: periods are calendar months.
    pub const FIRST: Self = Self(1);

    /// Creates an anchor day.
    ///
    /// # Errors
    /// If it is not 1 to 31.
    pub fn new(day: u8) -> Result<Self, InvalidInput> {
        if (1..=31).contains(&day) {
            Ok(Self(day))
        } else {
            Err(InvalidInput::new("anchorDay", format!("must be a day of the month from 1 to 31, not {day}")))
        }
    }

    /// The day of the month of a day.
    #[must_use]
    pub fn of(day: Day) -> Self {
        Self(u8::try_from(day.date().day()).unwrap_or(1))
    }

    /// The day of the month.
    #[must_use]
    pub const fn day(self) -> u8 {
        self.0
    }

    /// The anchor date in the month of a date.
    fn in_month_of(self, date: NaiveDate) -> NaiveDate {
        let last = first_of_next_month(date) - Days::new(1);
        last.with_day(self.0.into()).unwrap_or(last)
    }

    /// The newest anchor date up to today.
    fn newest(self, today: NaiveDate) -> NaiveDate {
        let date = self.in_month_of(today);
        if date <= today { date } else { self.in_month_of(Period::month_of(today).0 - Days::new(1)) }
    }
}

impl fmt::Display for AnchorDay {
    /// The day of the month.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn first_of_next_month(date: NaiveDate) -> NaiveDate {
    Period::month_of(date).0 + Months::new(1)
}

/// Number of days of a month.
fn month_length(first: NaiveDate) -> u8 {
    u8::try_from((first + Months::new(1) - first).num_days()).unwrap_or_default()
}

impl From<Period> for i32 {
    /// The number, for Postgres.
    fn from(period: Period) -> Self {
        period.id().cast_signed()
    }
}

impl fmt::Display for Period {
    /// Formats as `2026-11` or `2026-11-17`, for people and JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.format(if self.0.day() == 1 { "%Y-%m" } else { "%Y-%m-%d" }).fmt(f)
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

    /// The calendar month of an instant: the period of a user of anchor day 1.
    #[must_use]
    pub fn month_at(self, at: DateTime<Utc>) -> Period {
        Period::month_of(self.day_at(at).date())
    }

    /// The period of a new user.
    #[must_use]
    pub fn first_period_at(self, at: DateTime<Utc>, anchor_day: AnchorDay) -> Period {
        Period(anchor_day.newest(self.day_at(at).date()))
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
    pub fn period_end(self, period: Period, anchor_day: AnchorDay) -> DateTime<Utc> {
        self.period_start(period.next(anchor_day))
    }

    /// The first instant of a day.
    #[must_use]
    pub fn day_start(self, day: Day) -> DateTime<Utc> {
        self.midnight(day.date())
    }

    /// The calendar around `now`, to send to Redis.
    #[must_use]
    pub fn bounds_at(self, now: DateTime<Utc>) -> Bounds {
        let day = self.day_at(now - SKEW_MAX);
        let month = Period::month_of(day.date());
        let next_month = Period(first_of_next_month(day.date()));
        Bounds {
            day,
            day_end: self.midnight(day.date() + Days::new(1)),
            day_of_month: u8::try_from(day.date().day()).unwrap_or_default(),
            month,
            next_month,
            month_lengths: [month.month_before(), month, next_month].map(|month| month_length(month.0)),
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
mod tests;
