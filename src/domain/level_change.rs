//! When a change of level takes effect.

use super::ap::Ap;

/// When the caller wants a change of level to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effective {
    /// Up at once, down at the next period: what people have paid for stays theirs.
    #[default]
    Fair,
    /// At once, also downwards (a refund, an abuse case).
    Now,
}

/// When a change does take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// In the current period; what is used stays used.
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
