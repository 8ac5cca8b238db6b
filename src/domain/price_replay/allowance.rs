//! What one user has left under a proposal. Decides one message as the gate would.

use crate::domain::{
    level::LevelTerms,
    window::{WindowKey, WindowUnit},
};

/// A user's use of periods and windows.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// AP by period. A late commit may be charged to an earlier one.
    periods: Vec<(i32, u64)>,
    windows: Vec<RunningWindow>,
}

/// A window that has begun.
#[derive(Debug)]
struct RunningWindow {
    key: WindowKey,
    start_ms: i64,
    used: u64,
}

/// What a message asks of the plan: without what grants pay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) at_ms: i64,
    pub(super) period: i32,
    /// AP that must fit.
    pub(super) needed: u32,
    /// AP that are charged as far as they fit; at least `needed`.
    pub(super) cost: u32,
}

/// Limits that deny a message, one bit each: the quota, the model, then the windows of the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Binding(u16);

impl Binding {
    pub(super) const QUOTA: Self = Self(1);
    pub(super) const MODEL: Self = Self(2);
    /// Number of limits before the windows.
    pub(super) const BEFORE_WINDOWS: usize = 2;

    fn add_window(&mut self, place: usize) {
        self.0 |= 1 << (Self::BEFORE_WINDOWS + place);
    }

    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether the limit at this place binds.
    pub(super) fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }
}

impl Allowance {
    /// Forgets everything: the next user begins.
    pub(super) fn clear(&mut self) {
        self.periods.clear();
        self.windows.clear();
    }

    /// Decides a message, and counts it if it is allowed. Returns the charged AP, or every limit that denies it.
    /// Without terms, for a level that is unknown, everything is allowed.
    pub(super) fn decide(&mut self, terms: Option<&LevelTerms>, demand: Demand) -> Result<u32, Binding> {
        let mut binding = Binding::default();
        let mut free = u64::MAX;
        if let Some(terms) = terms {
            free = u64::from(terms.quota.get()).saturating_sub(*self.used_in(demand.period));
            if u64::from(demand.needed) > free {
                binding = Binding::QUOTA;
            }
            for (place, window) in terms.limits.windows().iter().enumerate() {
                let used = self.running(window.key, demand.at_ms).map_or(0, |running| running.used);
                let room = u64::from(window.limit).saturating_sub(used);
                match window.key.unit {
                    WindowUnit::Ap if u64::from(demand.needed) > room => binding.add_window(place),
                    WindowUnit::Requests if room == 0 => binding.add_window(place),
                    WindowUnit::Ap => free = free.min(room),
                    WindowUnit::Requests => {}
                }
            }
        }
        if !binding.is_none() {
            return Err(binding);
        }
        let charged = demand.cost.min(u32::try_from(free).unwrap_or(u32::MAX));
        *self.used_in(demand.period) += u64::from(charged);
        for window in terms.iter().flat_map(|terms| terms.limits.windows()) {
            let counted = match window.key.unit {
                WindowUnit::Ap => u64::from(charged),
                WindowUnit::Requests => 1,
            };
            if counted > 0 {
                self.count(window.key, demand.at_ms, counted);
            }
        }
        Ok(charged)
    }

    fn used_in(&mut self, period: i32) -> &mut u64 {
        let place = self.periods.iter().position(|(known, _)| *known == period).unwrap_or_else(|| {
            self.periods.push((period, 0));
            self.periods.len() - 1
        });
        &mut self.periods[place].1
    }

    /// The window that has begun and not ended.
    fn running(&mut self, key: WindowKey, at_ms: i64) -> Option<&mut RunningWindow> {
        let length_ms = key.length().num_milliseconds();
        self.windows.iter_mut().find(|window| window.key == key && at_ms < window.start_ms + length_ms)
    }

    fn count(&mut self, key: WindowKey, at_ms: i64, counted: u64) {
        if let Some(running) = self.running(key, at_ms) {
            running.used += counted;
            return;
        }
        self.windows.retain(|window| window.key != key);
        self.windows.push(RunningWindow { key, start_ms: at_ms, used: counted });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ap::Ap, window::LevelLimits};

    const HOUR_MS: i64 = 3_600_000;

    fn terms(quota: u32, windows: &str) -> LevelTerms {
        LevelTerms { quota: Ap::new(quota), limits: LevelLimits::parse(windows, None).unwrap() }
    }

    fn at(hours: i64, ap: u32) -> Demand {
        Demand { at_ms: hours * HOUR_MS, period: 202_611, needed: ap, cost: ap }
    }

    #[test]
    fn a_denied_message_counts_nowhere() {
        let (terms, mut user) = (terms(10, "5h ap 8"), Allowance::default());
        assert_eq!(user.decide(Some(&terms), at(0, 6)), Ok(6));
        let denied = user.decide(Some(&terms), at(1, 5)).unwrap_err();
        assert!(denied.has(0) && denied.has(Binding::BEFORE_WINDOWS) && !denied.has(1), "quota and window");
        assert_eq!(user.decide(Some(&terms), at(2, 2)), Ok(2));
    }

    #[test]
    fn a_window_begins_with_its_first_use_and_ends_after_its_length() {
        let (terms, mut user) = (terms(1000, "5h ap 10"), Allowance::default());
        for (hours, ap, allowed) in
            [(3, 10, true), (7, 1, false), (8, 1, true), (12, 9, true), (12, 1, false), (13, 10, true)]
        {
            assert_eq!(user.decide(Some(&terms), at(hours, ap)).is_ok(), allowed, "{hours} h");
        }
    }

    #[test]
    fn free_messages_count_as_requests_and_begin_no_window_of_ap() {
        let (terms, mut user) = (terms(1, "1h requests 2, 5h ap 1"), Allowance::default());
        assert!(user.decide(Some(&terms), at(0, 0)).is_ok() && user.decide(Some(&terms), at(0, 0)).is_ok());
        let denied = user.decide(Some(&terms), at(0, 0)).unwrap_err();
        assert!(denied.has(Binding::BEFORE_WINDOWS) && !denied.has(0) && !denied.has(Binding::BEFORE_WINDOWS + 1));
        assert_eq!(user.decide(Some(&terms), at(1, 1)), Ok(1));
        assert!(user.decide(Some(&terms), at(2, 0)).is_ok(), "an exhausted quota admits free messages");
    }

    #[test]
    fn periods_have_a_quota_each_and_what_need_not_fit_is_overage() {
        let (terms, mut user) = (terms(10, ""), Allowance::default());
        let of = |period, needed, cost| Demand { at_ms: 0, period, needed, cost };
        assert_eq!(user.decide(Some(&terms), of(202_611, 8, 8)), Ok(8));
        assert_eq!(user.decide(Some(&terms), of(20_261_117, 8, 8)), Ok(8));
        assert_eq!(user.decide(Some(&terms), of(202_611, 1, 5)), Ok(2));
        assert_eq!(user.decide(Some(&terms), of(202_611, 0, 5)), Ok(0));
        assert_eq!(user.decide(None, of(202_611, 50, 50)), Ok(50), "an unknown level has no limits");
    }

    #[test]
    fn a_window_goes_on_under_another_level() {
        let (low, high) = (terms(100, "5h ap 5"), terms(100, "5h ap 9"));
        let mut user = Allowance::default();
        assert!(user.decide(Some(&low), at(0, 5)).is_ok() && user.decide(Some(&low), at(1, 1)).is_err());
        assert!(user.decide(Some(&high), at(1, 4)).is_ok() && user.decide(Some(&high), at(2, 1)).is_err());
    }
}
