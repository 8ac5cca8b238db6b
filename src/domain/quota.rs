//! A user's quota in the current period: total, used and remaining.

use chrono::{DateTime, Utc};

use super::{
    ap::Ap,
    calendar::{AnchorDay, Period},
    level::LevelCode,
    user_id::UserId,
    user_limits::UserLimits,
};

/// A user's quota at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The user.
    pub user: UserId,
    /// Level that the quota comes from.
    pub level: LevelCode,
    /// Period of `used` and `held`.
    pub period: Period,
    /// Day of the month on which the user's periods begin.
    pub anchor_day: AnchorDay,
    /// AP that the user may use in the period.
    pub quota: Ap,
    /// Whether `quota` is the user's own, not that of the level.
    pub own_quota: bool,
    /// Whether new messages are refused.
    pub blocked: bool,
    /// AP charged in the period.
    pub used: Ap,
    /// AP reserved in the period and not yet settled.
    pub held: Ap,
    /// AP charged on the current day.
    pub used_today: Ap,
    /// AP charged since the user was first seen.
    pub total_used: u64,
    /// Increases with every change, also across periods and generations.
    pub version: u64,
    /// When these numbers were current.
    pub as_of: DateTime<Utc>,
    /// Store that answered.
    pub source: Source,
    /// Limits beside the quota, and grants. Empty for most users.
    pub limits: UserLimits,
}

/// Which store a [`Quota`] was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The record: current up to the last charge.
    Redis,
    /// The row: can be behind by the flush lag. Used for reads while Redis is unavailable.
    Postgres,
}

/// How close a user is to the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaStatus {
    /// At most 80 % used.
    Ok,
    /// More than 80 % used.
    Warn,
    /// More than 95 % used.
    Critical,
    /// Nothing remains.
    Exhausted,
}

impl Quota {
    /// `quota - used - held`, never below 0.
    #[must_use]
    pub const fn remaining(&self) -> Ap {
        self.quota.saturating_sub(self.used).saturating_sub(self.held)
    }

    /// `used` in percent of `quota`, to one decimal place; 100 for a quota of 0.
    #[must_use]
    pub fn usage_percent(&self) -> f64 {
        if self.quota == Ap::ZERO {
            return 100.0;
        }
        (f64::from(self.used.get()) * 1000.0 / f64::from(self.quota.get())).round() / 10.0
    }

    /// How close the user is to the limit. Held AP count only for [`QuotaStatus::Exhausted`].
    #[must_use]
    pub fn status(&self) -> QuotaStatus {
        let (used, quota) = (u64::from(self.used.get()) * 100, u64::from(self.quota.get()));
        if self.remaining() == Ap::ZERO {
            QuotaStatus::Exhausted
        } else if used > 95 * quota {
            QuotaStatus::Critical
        } else if used > 80 * quota {
            QuotaStatus::Warn
        } else {
            QuotaStatus::Ok
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::domain) fn quota(quota: u32, used: u32, held: u32) -> Quota {
        Quota {
            user: UserId::parse("u").unwrap(),
            level: LevelCode::new(1).unwrap(),
            period: Period::from_id(202_611).unwrap(),
            anchor_day: AnchorDay::FIRST,
            quota: Ap::new(quota),
            own_quota: false,
            blocked: false,
            used: Ap::new(used),
            held: Ap::new(held),
            used_today: Ap::ZERO,
            total_used: 0,
            version: 1,
            as_of: DateTime::default(),
            source: Source::Redis,
            limits: UserLimits::default(),
        }
    }

    #[test]
    fn status_changes_just_above_80_and_95_percent() {
        let cases = [
            (0, QuotaStatus::Ok),
            (80, QuotaStatus::Ok),
            (81, QuotaStatus::Warn),
            (95, QuotaStatus::Warn),
            (96, QuotaStatus::Critical),
            (100, QuotaStatus::Exhausted),
        ];
        for (used, status) in cases {
            assert_eq!(quota(100, used, 0).status(), status, "{used}");
        }
        assert_eq!(quota(100, 50, 50).status(), QuotaStatus::Exhausted);
        assert_eq!(quota(0, 0, 0).status(), QuotaStatus::Exhausted);
    }

    #[test]
    fn remaining_is_never_negative() {
        assert_eq!(quota(300, 255, 4).remaining(), Ap::new(41));
        assert_eq!(quota(100, 200, 5).remaining(), Ap::ZERO);
    }

    #[test]
    fn usage_percent_has_one_decimal() {
        assert!((quota(300, 255, 0).usage_percent() - 85.0).abs() < f64::EPSILON);
        assert!((quota(3, 1, 0).usage_percent() - 33.3).abs() < f64::EPSILON);
        assert!((quota(0, 0, 0).usage_percent() - 100.0).abs() < f64::EPSILON);
    }
}
