//! I1 and I5 beyond the quota: what a window counts and how many holds are live at once, and when periods begin.

use std::{collections::HashMap, time::Duration};

use anyhow::Context;
use chrono::NaiveDate;

use super::{Allowed, Audit, LogRow};
use crate::{
    history::{Event, History, Kind, Outcome},
    load::{TTL, user},
    plans::{AP_WINDOW, CONCURRENCY, REQUEST_WINDOW, WINDOWED},
};

/// Fewest days of a period that no payment has ended.
const PERIOD_DAYS_MIN: i64 = 28;

impl Audit {
    /// A window begins with first use and lasts for its length, so the time in which a user was charged bounds how many
    /// of them there were.
    pub(super) fn no_window_is_exceeded(
        &mut self,
        rows: &[LogRow],
        history: &History,
        allowed: &Allowed,
        reopened: bool,
    ) {
        if allowed.clocks_jump || !self.with_plans {
            return;
        }
        for number in WINDOWED {
            let who = user(number);
            let events: Vec<&Event> = history.of(&who).collect();
            let (Some(first), Some(last)) = (events.first(), events.last()) else { continue };
            let from = events.iter().map(|event| event.sent).min().unwrap_or(first.sent);
            let span = last.answered.saturating_sub(from);
            let at_most = |(length, limit): (Duration, u32)| {
                let windows = span.as_secs() / length.as_secs() + 1;
                windows * u64::from(limit)
            };
            let mine = || rows.iter().filter(|row| row.user == who);
            let beside = allowed.beside(&who, history);
            let ap: u64 = mine().map(|row| u64::from(row.plan)).sum();
            let limit = at_most(AP_WINDOW);
            if ap > limit + beside {
                self.violated("I1", format!("windows of {limit} AP of {who} counted {ap} AP (+{beside})"));
            }
            // A hold of an older generation, and one that has expired, counts as a request, but is not refused.
            let late = events.iter().filter(|event| is_late(event, &events)).count();
            let requests = mine().count().saturating_sub(late) as u64;
            let limit = at_most(REQUEST_WINDOW);
            if !reopened && requests > limit + beside {
                self.violated("I1", format!("windows of {limit} requests of {who} counted {requests} (+{beside})"));
            }
        }
    }

    /// Counts the holds that are live in any case: from their answer until they are settled or their time is over.
    pub(super) fn no_user_holds_too_many(&mut self, history: &History, allowed: &Allowed) {
        if allowed.clocks_jump || !self.with_plans || !allowed.splits.is_empty() {
            return;
        }
        for number in WINDOWED {
            let events: Vec<&Event> = history.of(&user(number)).collect();
            let held: Vec<(Duration, Duration)> = events
                .iter()
                .filter_map(|event| {
                    let Outcome::Held { hold, degraded: false } = event.outcome else { return None };
                    let settles =
                        |other: &&&Event| matches!(other.kind, Kind::Commit(of) | Kind::Release(of) if of == hold);
                    let settled = events.iter().filter(settles).map(|other| other.sent).min();
                    Some((event.answered, settled.unwrap_or(Duration::MAX).min(event.sent + TTL)))
                })
                .collect();
            for (from, until) in &held {
                let live = held.iter().filter(|(other, end)| other <= from && from < end).count();
                if from < until && live > CONCURRENCY && !allowed.lost_between(*from, *from) {
                    self.violated("I1", format!("{} had {live} live holds at {from:?}", user(number)));
                }
            }
        }
    }

    /// No payment begins a period in these runs, so each has at least 28 days.
    pub(super) fn periods_last(&mut self, rows: &[LogRow]) -> anyhow::Result<()> {
        let mut begun: HashMap<&str, Vec<NaiveDate>> = HashMap::new();
        for row in rows {
            begun.entry(&row.user).or_default().push(first_day(row.period)?);
        }
        for (who, mut days) in begun {
            days.sort_unstable();
            days.dedup();
            for two in days.windows(2) {
                let lasted = (two[1] - two[0]).num_days();
                if lasted < PERIOD_DAYS_MIN {
                    self.violated("I5", format!("{who}: the period of {} lasted {lasted} days", two[0]));
                }
            }
        }
        Ok(())
    }
}

/// Returns whether this is a commit that may have come after its hold had expired.
fn is_late(event: &Event, events: &[&Event]) -> bool {
    let (Kind::Commit(hold), Outcome::Charged { .. }) = (event.kind, event.outcome) else { return false };
    let reserved = |other: &&&Event| matches!(other.outcome, Outcome::Held { hold: of, .. } if of == hold);
    events.iter().find(reserved).is_none_or(|reserved| event.answered >= reserved.sent + TTL)
}

/// The first day of a period: `YYYYMM` or `YYYYMMDD`.
fn first_day(period: i32) -> anyhow::Result<NaiveDate> {
    let date = if period < 1_000_000 { period * 100 + 1 } else { period };
    let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
    NaiveDate::from_ymd_opt(year, u32::try_from(month)?, u32::try_from(day)?)
        .with_context(|| format!("{period} is not a period"))
}
