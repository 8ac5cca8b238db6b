//! Price replay: runs the usage log through proposed levels and prices. Reads only.

use chrono::{DateTime, NaiveDate, Utc};

use crate::{
    domain::{
        InvalidInput,
        calendar::{Calendar, Day, PERIOD_DAYS_MAX},
        price_replay::{Proposal, Report, Simulation},
    },
    store::postgres::{Postgres, PostgresError},
};

/// Maximum users to list.
const LISTED_USERS_MAX: usize = 50;

/// Replays the log of an installation.
#[derive(Debug, Clone)]
pub struct PriceReplay {
    /// Store of the log.
    pub postgres: Postgres,
    /// Calendar of days and periods.
    pub calendar: Calendar,
}

/// Days of messages to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayedDays {
    from: Day,
    to: Day,
}

/// Why a replay failed. It is safe to run it again.
#[derive(Debug, thiserror::Error)]
pub enum PriceReplayError {
    /// Another replay is running. Each sorts a large part of the log, so there is one at a time.
    #[error("another price replay is running: wait until it has ended")]
    Running,
    /// Postgres did not answer.
    #[error("cannot read the usage log: {0}")]
    Postgres(#[from] PostgresError),
}

impl ReplayedDays {
    /// Creates a range of days. Both are included.
    ///
    /// # Errors
    /// If the last day is before the first, there are more than `days_max` days, or a day is outside of 1970 to 2149.
    pub fn new(from: NaiveDate, to: NaiveDate, days_max: u16) -> Result<Self, InvalidInput> {
        if from > to || (to - from).num_days() >= days_max.into() {
            let rule = format!("must not be after `to`, and a range has at most {days_max} days");
            return Err(InvalidInput { field: "from", rule });
        }
        let day = |field, date: NaiveDate| {
            let number =
                u16::try_from((date - NaiveDate::default()).num_days()).ok().filter(|number| *number < u16::MAX);
            number.map(Day::from_number).ok_or_else(|| InvalidInput {
                field,
                rule: format!("must be a day of the years 1970 to 2149, not {date}"),
            })
        };
        Ok(Self { from: day("from", from)?, to: day("to", to)? })
    }

    /// The first day.
    #[must_use]
    pub fn from(self) -> NaiveDate {
        self.from.date()
    }

    /// The last day.
    #[must_use]
    pub fn to(self) -> NaiveDate {
        self.to.date()
    }

    fn end(self, calendar: Calendar) -> DateTime<Utc> {
        calendar.day_start(Day::from_number(self.to.number() + 1))
    }
}

impl PriceReplay {
    /// Replays the messages of these days. Earlier messages of the periods in which the range begins are read too: they
    /// use up quotas and windows, and are not in the result. That is the calendar month, or the longest period if users
    /// have other anchor days.
    ///
    /// # Errors
    /// [`PriceReplayError::Running`] while another one runs, or if Postgres is unavailable.
    pub async fn run(&self, days: ReplayedDays, proposal: Proposal) -> Result<Report, PriceReplayError> {
        let counted_from = self.calendar.day_start(days.from);
        let read_from = if self.postgres.has_anchor_days().await? {
            self.calendar.day_start(Day::from_number(days.from.number().saturating_sub(PERIOD_DAYS_MAX)))
        } else {
            self.calendar.period_start(self.calendar.month_at(counted_from)).min(counted_from)
        };
        let counted_from_ms = counted_from.timestamp_millis();
        let mut simulation = Simulation::new(proposal, self.calendar, counted_from_ms, LISTED_USERS_MAX);
        let messages =
            self.postgres.read_messages(read_from, days.end(self.calendar), |message| simulation.add(message));
        if messages.await? { Ok(simulation.finish()) } else { Err(PriceReplayError::Running) }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Days;

    use super::*;

    #[test]
    fn a_range_has_its_first_and_last_day_and_a_maximum() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let november = ReplayedDays::new(day("2026-11-01"), day("2026-11-30"), 30).unwrap();
        assert_eq!((november.from(), november.to()), (day("2026-11-01"), day("2026-11-30")));
        let shanghai = Calendar::new("Asia/Shanghai".parse().unwrap());
        assert_eq!(november.end(shanghai), "2026-11-30T16:00:00Z".parse::<DateTime<Utc>>().unwrap());
        for (from, to) in [("2026-11-01", "2026-12-01"), ("2026-11-02", "2026-11-01"), ("1969-12-31", "1970-01-01")] {
            assert!(ReplayedDays::new(day(from), day(to), 30).is_err(), "{from} {to}");
        }
        assert!(ReplayedDays::new(NaiveDate::MAX - Days::new(1), NaiveDate::MAX, 30).is_err());
    }
}
