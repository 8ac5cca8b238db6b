//! AP, the unit of chat allowance.

use std::fmt;

use super::InvalidInput;

/// An amount of AP: a quota, a charge or a balance. A non-negative integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ap(u32);

impl Ap {
    /// Zero AP.
    pub const ZERO: Self = Self(0);
    /// Cost of one message, unless its model costs more.
    pub const ONE: Self = Self(1);
    /// Maximum cost of one operation. It keeps each monthly sum far below the maximum of the record's four-byte field.
    pub const COST_MAX: u32 = 1_000_000;

    /// Creates any amount, for quotas and balances.
    #[must_use]
    pub const fn new(amount: u32) -> Self {
        Self(amount)
    }

    /// Creates the cost of an operation.
    ///
    /// # Errors
    /// If `amount` is not 1 to 1,000,000.
    pub fn cost(amount: i64) -> Result<Self, InvalidInput> {
        u32::try_from(amount).ok().filter(|ap| (1..=Self::COST_MAX).contains(ap)).map(Self).ok_or_else(|| {
            InvalidInput::new("ap", format!("must be a whole number from 1 to {}, not {amount}", Self::COST_MAX))
        })
    }

    /// Creates the price of a model, or the cost of a message by it; may be 0.
    ///
    /// # Errors
    /// If `amount` is not 0 to 1,000,000.
    pub fn price(amount: i64) -> Result<Self, InvalidInput> {
        u32::try_from(amount).ok().filter(|ap| *ap <= Self::COST_MAX).map(Self).ok_or_else(|| {
            InvalidInput::new("ap", format!("must be a whole number from 0 to {}, not {amount}", Self::COST_MAX))
        })
    }

    /// The amount as a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// `self - other`, at least 0.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self + other`, at most [`u32::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Ap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_between_one_and_a_million() {
        assert_eq!(Ap::cost(1), Ok(Ap::ONE));
        assert_eq!(Ap::cost(1_000_000).map(Ap::get), Ok(1_000_000));
        assert_eq!(Ap::price(0), Ok(Ap::ZERO));
        assert!(Ap::price(-1).is_err() && Ap::price(1_000_001).is_err());
        for refused in [0, -1, 1_000_001, i64::MAX, i64::MIN] {
            assert!(Ap::cost(refused).is_err(), "{refused}");
        }
    }
}
