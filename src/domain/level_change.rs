//! When a level change takes effect.

use super::ap::Ap;

/// When the caller wants a level change to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effective {
    /// Upgrades immediately, downgrades in the next period: users keep what they have paid for.
    #[default]
    Fair,
    /// Immediately, even for downgrades (a refund, an abuse case).
    Now,
}

/// When a change actually takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// In the current period; used AP do not change.
    Now,
    /// When the next period begins.
    NextPeriod,
}

impl Effective {
    /// When a change from one quota to another takes effect.
    #[must_use]
    pub fn timing(self, current: Ap, target: Ap) -> Timing {
        match self {
            Self::Fair if target < current => Timing::NextPeriod,
            Self::Fair | Self::Now => Timing::Now,
        }
    }
}
