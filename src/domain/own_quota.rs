//! A quota of one user's own, which replaces that of the user's level.

use super::{InvalidInput, ap::Ap};

/// AP per period of one user. It stays until it is removed: over rolls and changes of level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnQuota(Ap);

/// A change of one user by hand. What is `None` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserChange {
    /// The user's own quota; `Some(None)` for that of the level.
    pub quota: Option<Option<OwnQuota>>,
    /// Whether new messages are refused.
    pub blocked: Option<bool>,
}

impl OwnQuota {
    /// No limit: more than a user can use in a period.
    pub const UNLIMITED: Self = Self(Ap::new(i32::MAX as u32));

    /// A number of AP.
    ///
    /// # Errors
    /// If it is negative, or larger than any limit.
    pub fn new(ap: i64) -> Result<Self, InvalidInput> {
        let fitting = u32::try_from(ap).ok().map(Ap::new).filter(|ap| *ap <= Self::UNLIMITED.0);
        let rule = || format!("must be 0 to {}, not {ap}", Self::UNLIMITED.0);
        fitting.map(Self).ok_or_else(|| InvalidInput::new("quota", rule()))
    }

    /// Parses a number of AP or `unlimited`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidInput> {
        if text == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        let ap = text.parse().map_err(|_| InvalidInput::new("quota", "must be a number of AP, or unlimited"))?;
        Self::new(ap)
    }

    /// The quota in AP.
    #[must_use]
    pub const fn ap(self) -> Ap {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_quota_is_a_number_or_unlimited() {
        assert_eq!(OwnQuota::parse("0").unwrap().ap(), Ap::ZERO);
        assert_eq!(OwnQuota::parse("unlimited").unwrap(), OwnQuota::new(2_147_483_647).unwrap());
        for text in ["", "-1", "2147483648", "1.5", "Unlimited", "many"] {
            assert!(OwnQuota::parse(text).is_err(), "{text}");
        }
    }
}
