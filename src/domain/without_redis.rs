//! A user's limits as far as Postgres knows them: without holds, and without charges that are not flushed.

use chrono::{DateTime, Utc};

use super::{
    ap::Ap,
    grant::Grants,
    quota::Quota,
    user_limits::{UserLimits, WindowUsage},
    window::{LevelLimits, Window, WindowState, WindowUnit},
};

/// Messages that were decided without Redis and are not charged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Number of messages.
    pub messages: u32,
    /// Their AP.
    pub ap: u32,
}

impl UserLimits {
    /// The limits of a level, with the windows and grants that Postgres knows. Nothing is held.
    #[must_use]
    pub fn without_redis(level: &LevelLimits, windows: &[WindowState], grants: &Grants, now: DateTime<Utc>) -> Self {
        let usage = |window: Window| {
            let running =
                windows.iter().find(|state| state.key == window.key && now < state.start + window.key.length());
            WindowUsage {
                window,
                start: running.map(|state| state.start),
                used: running.map_or(0, |state| state.used),
                held: 0,
            }
        };
        let mut grants = grants.clone();
        grants.live.retain(|grant| grant.expires_at.is_none_or(|expiry| now < expiry));
        let granted_free = grants.live.iter().fold(Ap::ZERO, |sum, grant| sum.saturating_add(grant.left));
        Self {
            windows: level.windows().iter().copied().map(usage).collect(),
            concurrency: level.concurrency(),
            grants,
            granted_free,
            ..Self::default()
        }
    }
}

impl Quota {
    /// Counts messages as if they were charged now: the plan pays what it can, grants pay the rest.
    #[must_use]
    pub fn with_waiting(mut self, waiting: Waiting) -> Self {
        let granted = self.limits.granted_free;
        let plan = self.available().saturating_sub(granted).get();
        let of_plan = waiting.ap.min(plan);
        self.used = self.used.saturating_add(Ap::new(of_plan));
        self.limits.granted_free = granted.saturating_sub(Ap::new(waiting.ap - of_plan));
        for usage in &mut self.limits.windows {
            let counted = if usage.window.key.unit == WindowUnit::Ap { of_plan } else { waiting.messages };
            usage.used = usage.used.saturating_add(counted);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        clock::instant,
        grant::{Grant, GrantNumber},
        quota::Source,
        user_limits::Occupies,
        window::WindowKey,
    };

    const MINUTE_MS: i64 = 60_000;

    fn grant(left: u32, expires_ms: Option<i64>) -> Grant {
        let number = GrantNumber::new(u64::from(left)).unwrap();
        Grant { number, left: Ap::new(left), expires_at: expires_ms.map(instant), priority: 100 }
    }

    /// A quota of 100 AP with 70 used, by Postgres at minute 100.
    fn quota(windows: &str, states: &[WindowState], grants: Vec<Grant>) -> Quota {
        let now = instant(100 * MINUTE_MS);
        let level = LevelLimits::parse(windows, None).unwrap();
        Quota {
            as_of: now,
            source: Source::Postgres,
            limits: UserLimits::without_redis(&level, states, &Grants { version: 1, live: grants }, now),
            ..crate::domain::quota::tests::quota(100, 70, 0)
        }
    }

    fn state(minutes: u16, unit: WindowUnit, start_minute: i64, used: u32) -> WindowState {
        WindowState { key: WindowKey::new(minutes, unit).unwrap(), start: instant(start_minute * MINUTE_MS), used }
    }

    fn admits(quota: &Quota, ap: u32) -> bool {
        quota.binding(Ap::new(ap), Occupies::Nothing, instant(i64::MAX / 2_000_000)).is_empty()
    }

    #[test]
    fn windows_count_while_they_run_and_grants_pay_until_they_expire() {
        let running = quota("10m ap 20", &[state(10, WindowUnit::Ap, 91, 15)], vec![]);
        assert!(admits(&running, 5) && !admits(&running, 6));
        let over = quota("10m ap 20", &[state(10, WindowUnit::Ap, 90, 15)], vec![]);
        assert!(admits(&over, 20) && !admits(&over, 21));
        let now_ms = 100 * MINUTE_MS;
        let granted = quota("10m ap 20", &[], vec![grant(7, None), grant(9, Some(now_ms)), grant(8, Some(now_ms + 1))]);
        assert!(admits(&granted, 35) && !admits(&granted, 36));
    }

    #[test]
    fn waiting_messages_are_paid_by_the_plan_and_then_by_grants() {
        let before =
            quota("10m ap 20, 10m requests 5", &[state(10, WindowUnit::Requests, 91, 2)], vec![grant(30, None)]);
        let after = before.with_waiting(Waiting { messages: 2, ap: 25 });
        assert_eq!((after.used.get(), after.limits.granted_free.get()), (90, 25));
        assert!(admits(&after, 25) && !admits(&after, 26));
        assert!(admits(&after.clone().with_waiting(Waiting { messages: 0, ap: 0 }), 25));
        assert!(!admits(&after.with_waiting(Waiting { messages: 1, ap: 0 }), 1), "five requests are made");
    }

    #[test]
    fn more_than_everything_leaves_nothing() {
        let empty = quota("", &[], vec![grant(3, None)]).with_waiting(Waiting { messages: 9, ap: u32::MAX });
        assert!(admits(&empty, 0) && !admits(&empty, 1));
    }
}
