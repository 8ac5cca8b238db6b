//! A user's limits beside the quota, and which of them a message does not fit.

use chrono::{DateTime, Utc};

use super::{
    ap::Ap,
    grant::Grants,
    quota::Quota,
    window::{Window, WindowUnit},
};

/// Windows, concurrency and grants of a user at one moment. Empty for a user who has none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserLimits {
    /// The windows of the level.
    pub windows: Vec<WindowUsage>,
    /// Maximum live holds, if limited.
    pub concurrency: Option<u8>,
    /// Live holds.
    pub live_holds: u8,
    /// When the first of them expires.
    pub hold_ends_at: Option<DateTime<Utc>>,
    /// Live grants.
    pub grants: Grants,
    /// AP of live holds that grants are to pay.
    pub held_granted: Ap,
    /// AP of grants that no hold needs.
    pub granted_free: Ap,
}

/// A window of the user's level, and what the user has used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowUsage {
    /// The window.
    pub window: Window,
    /// When it began; none if it is not running.
    pub start: Option<DateTime<Utc>>,
    /// What it has counted.
    pub used: u32,
    /// What live holds hold of it.
    pub held: u32,
}

/// A limit of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// AP per period.
    Period,
    /// AP or requests of a window.
    Window(Window),
    /// Live holds.
    Concurrency,
}

/// A limit with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitState {
    /// The limit.
    pub limit: Limit,
    /// Its maximum.
    pub max: u32,
    /// Used.
    pub used: u32,
    /// Held.
    pub held: u32,
    /// When what is used is free again, if a time is known.
    pub resets_at: Option<DateTime<Utc>>,
}

/// What a message would occupy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupies {
    /// Nothing: it is charged in one step.
    Nothing,
    /// A hold.
    Hold,
}

/// A limit that a message does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The limit.
    pub state: LimitState,
    /// When the message would fit this limit if nothing else happens; none if never.
    pub retry_at: Option<DateTime<Utc>>,
}

impl UserLimits {
    /// Whether the level has limits beside the quota.
    #[must_use]
    pub const fn binds(&self) -> bool {
        !self.windows.is_empty() || self.concurrency.is_some()
    }

    /// AP of grants that no hold needs, and that will not have expired then.
    fn granted_free_at(&self, at: DateTime<Utc>) -> u64 {
        let live = self.grants.live.iter().filter(|grant| grant.expires_at.is_none_or(|expiry| expiry > at));
        let left: u64 = live.map(|grant| u64::from(grant.left.get())).sum();
        left.min(self.granted_free.get().into())
    }
}

impl WindowUsage {
    /// What remains.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.window.limit.saturating_sub(self.used).saturating_sub(self.held)
    }

    /// When the window ends; none if it is not running.
    #[must_use]
    pub fn ends_at(&self) -> Option<DateTime<Utc>> {
        self.start.map(|start| start + self.window.key.length())
    }
}

impl Limit {
    /// The name in answers: `monthly`, `concurrency`, of a window of AP `5h`, and of requests `5h-requests`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Period => "monthly".to_owned(),
            Self::Window(Window { key, .. }) if key.unit == WindowUnit::Ap => key.every(),
            Self::Window(Window { key, .. }) => format!("{}-requests", key.every()),
            Self::Concurrency => "concurrency".to_owned(),
        }
    }

    /// What the limit counts.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Period => WindowUnit::Ap.as_str(),
            Self::Window(window) => window.key.unit.as_str(),
            Self::Concurrency => "holds",
        }
    }

    const fn counts_ap(self) -> bool {
        match self {
            Self::Period => true,
            Self::Window(window) => matches!(window.key.unit, WindowUnit::Ap),
            Self::Concurrency => false,
        }
    }
}

impl LimitState {
    /// What remains.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        self.max.saturating_sub(self.used).saturating_sub(self.held)
    }
}

impl Quota {
    /// All limits of the user: the period first, then windows from the shortest on, then concurrency.
    #[must_use]
    pub fn limit_states(&self, period_end: DateTime<Utc>) -> Vec<LimitState> {
        let mut states = vec![LimitState {
            limit: Limit::Period,
            max: self.quota.get(),
            used: self.used.get(),
            held: self.held.get(),
            resets_at: Some(period_end),
        }];
        states.extend(self.limits.windows.iter().map(|usage| LimitState {
            limit: Limit::Window(usage.window),
            max: usage.window.limit,
            used: usage.used,
            held: usage.held,
            resets_at: usage.ends_at(),
        }));
        states.extend(self.limits.concurrency.map(|max| LimitState {
            limit: Limit::Concurrency,
            max: max.into(),
            used: 0,
            held: self.limits.live_holds.into(),
            resets_at: self.limits.hold_ends_at,
        }));
        states
    }

    /// AP that a message may cost now: what all limits leave of the plan, and free grants.
    #[must_use]
    pub fn available(&self) -> Ap {
        let windows = self.limits.windows.iter().filter(|usage| usage.window.key.unit == WindowUnit::Ap);
        let plan = windows.map(WindowUsage::remaining).fold(self.remaining().get(), u32::min);
        Ap::new(plan).saturating_add(self.limits.granted_free)
    }

    /// The limits that a message of this cost does not fit, in the order of [`limit_states`](Self::limit_states).
    #[must_use]
    pub fn binding(&self, cost: Ap, occupies: Occupies, period_end: DateTime<Utc>) -> Vec<Binding> {
        let fits = |limit: Limit, remaining: u32, at: DateTime<Utc>| match limit {
            limit if limit.counts_ap() => {
                u64::from(cost.get()) <= u64::from(remaining) + self.limits.granted_free_at(at)
            }
            Limit::Concurrency => occupies == Occupies::Nothing || remaining > 0,
            _ => remaining > 0,
        };
        let states = self.limit_states(period_end).into_iter();
        let binding = states.filter(|state| !fits(state.limit, state.remaining(), self.as_of));
        binding
            .map(|state| Binding { state, retry_at: state.resets_at.filter(|at| fits(state.limit, state.max, *at)) })
            .collect()
    }

    /// Whether a message of this cost would be allowed.
    #[must_use]
    pub fn admits(&self, cost: Ap, occupies: Occupies) -> bool {
        // No decision depends on the end of the period.
        self.binding(cost, occupies, self.as_of).is_empty()
    }

    /// When a message would be allowed if nothing else happens; none if never. Some limit is reset then, and grants
    /// that expire before do not pay.
    #[must_use]
    pub fn retry_at(&self, cost: Ap, occupies: Occupies, period_end: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let states = self.limit_states(period_end);
        let mut resets: Vec<_> = states.iter().filter_map(|state| state.resets_at).collect();
        resets.sort_unstable();
        resets.into_iter().find(|at| self.at(*at, period_end).admits(cost, occupies))
    }

    /// The numbers at a later time if nothing else happens. AP of holds that expire stay held.
    pub(super) fn at(&self, at: DateTime<Utc>, period_end: DateTime<Utc>) -> Self {
        let mut quota = Self { as_of: at, ..self.clone() };
        if period_end <= at {
            (quota.used, quota.held) = (Ap::ZERO, Ap::ZERO);
        }
        for usage in quota.limits.windows.iter_mut().filter(|usage| usage.ends_at().is_some_and(|end| end <= at)) {
            *usage = WindowUsage { start: None, used: 0, held: 0, ..*usage };
        }
        if self.limits.hold_ends_at.is_some_and(|end| end <= at) {
            quota.limits.live_holds = quota.limits.live_holds.saturating_sub(1);
        }
        quota
    }
}
