//! Rollout: for which users the gate decides while a product switches over to it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{InvalidInput, user_id::UserId};

/// Differs from the partitions' seed, so a share of the users is that share of each partition.
const SEED: u64 = 0x71_756f_7461;
/// Number of shares: a percentage has two decimals.
const SHARES: u16 = 10_000;

/// What the gate does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The message passes uncharged. Neither Redis nor Postgres is asked.
    Off,
    /// Decides and charges. Messages that it would deny or cannot decide pass uncharged and are counted.
    Shadow,
    /// Decides, charges and denies.
    #[default]
    Enforce,
}

/// A share of the users in percent, with at most two decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percentage(u16);

/// For which users the gate decides, and how. Messages of other users pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// Mode for users in the rollout.
    pub mode: Mode,
    /// Share of users in the rollout, by a hash of the id; a higher share only adds users.
    pub percentage: Percentage,
    /// In the rollout regardless of the percentage.
    pub always_in: BTreeSet<UserId>,
    /// Outside the rollout regardless of the percentage. Overrides `always_in`.
    pub always_out: BTreeSet<UserId>,
}

impl Rollout {
    /// The mode for this user's messages.
    #[must_use]
    pub fn mode_for(&self, user: &UserId) -> Mode {
        if self.mode == Mode::Off || self.always_out.contains(user) {
            Mode::Off
        } else if self.percentage.covers(user) || self.always_in.contains(user) {
            self.mode
        } else {
            Mode::Off
        }
    }
}

impl Percentage {
    /// All users.
    pub const ALL: Self = Self(SHARES);

    fn covers(self, user: &UserId) -> bool {
        self == Self::ALL || xxh3_64_with_seed(user.as_str().as_bytes(), SEED) % u64::from(SHARES) < self.0.into()
    }

    /// The percentage, from 0 to 100.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl Default for Percentage {
    fn default() -> Self {
        Self::ALL
    }
}

impl TryFrom<f64> for Percentage {
    type Error = InvalidInput;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is 0 to 10,000")]
    fn try_from(percent: f64) -> Result<Self, InvalidInput> {
        let shares = (percent * 100.0).round();
        let has_two_decimals = (percent * 100.0 - shares).abs() < 1e-6;
        if (0.0..=100.0).contains(&percent) && has_two_decimals {
            Ok(Self(shares as u16))
        } else {
            Err(InvalidInput::new("percentage", "must be 0 to 100, with at most two decimals"))
        }
    }
}

impl From<Percentage> for f64 {
    fn from(percentage: Percentage) -> Self {
        percentage.get()
    }
}

impl Mode {
    /// The name in configuration, JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Enforce => "enforce",
        }
    }
}

impl FromStr for Mode {
    type Err = InvalidInput;

    fn from_str(word: &str) -> Result<Self, InvalidInput> {
        [Self::Off, Self::Shadow, Self::Enforce]
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .ok_or_else(|| InvalidInput::new("mode", "must be off, shadow or enforce"))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u32) -> UserId {
        UserId::parse(&format!("user-{number}")).unwrap()
    }

    fn rollout(percent: f64) -> Rollout {
        Rollout { percentage: percent.try_into().unwrap(), ..Rollout::default() }
    }

    fn covered(percent: f64) -> BTreeSet<u32> {
        (0..100_000).filter(|number| rollout(percent).mode_for(&user(*number)) == Mode::Enforce).collect()
    }

    #[test]
    fn a_percentage_covers_its_share_and_a_higher_one_only_adds_users() {
        let mut before = BTreeSet::new();
        for percent in [0.0, 0.25, 1.0, 10.0, 10.5, 50.0, 99.99, 100.0] {
            let now = covered(percent);
            #[expect(clippy::cast_precision_loss, reason = "at most 100,000")]
            let share = now.len() as f64 / 1000.0;
            assert!((share - percent).abs() < 1.0, "{percent} % is {share} %");
            assert!(now.is_superset(&before), "{percent} %");
            before = now;
        }
        assert_eq!(before.len(), 100_000);
        assert_eq!(covered(0.0).len(), 0);
    }

    /// All builds and machines select the same users, so an upgrade moves no user in or out.
    #[test]
    fn five_percent_always_selects_the_same_users() {
        let first: Vec<u32> = covered(5.0).into_iter().take(5).collect();
        assert_eq!(first, [79, 96, 109, 120, 136]);
    }

    #[test]
    fn lists_override_the_percentage_and_off_overrides_everything() {
        let (a, b) = (user(1), user(2));
        let mut rollout = Rollout { always_in: [a.clone(), b.clone()].into(), ..rollout(0.0) };
        assert_eq!(rollout.mode_for(&a), Mode::Enforce);
        rollout.always_out.insert(b.clone());
        assert_eq!(rollout.mode_for(&b), Mode::Off);
        rollout.mode = Mode::Shadow;
        assert_eq!(rollout.mode_for(&a), Mode::Shadow);
        rollout.mode = Mode::Off;
        assert_eq!(rollout.mode_for(&a), Mode::Off);
    }

    #[test]
    fn a_percentage_is_a_number_from_0_to_100() {
        for wrong in [-1.0, 100.01, f64::NAN, f64::INFINITY, 0.001] {
            assert!(Percentage::try_from(wrong).is_err(), "{wrong}");
        }
        assert_eq!(serde_json::to_string(&rollout(12.5).percentage).unwrap(), "12.5");
    }
}
