//! How the configured levels differ from those of the installation.

use std::fmt;

use super::{
    ap::Ap,
    level::{LevelName, LevelTerms, Levels},
    meter::{MeterLevels, MeterName},
};

/// What applying the configuration would change about one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LevelDifference {
    /// The level is not offered yet.
    Added {
        /// Name of the level.
        name: LevelName,
        /// Its configured quota and limits.
        terms: LevelTerms,
    },
    /// The level has another quota or other limits.
    Changed {
        /// Name of the level.
        name: LevelName,
        /// Its quota and limits in the installation.
        from: LevelTerms,
        /// Its configured ones.
        to: LevelTerms,
    },
    /// The level is not configured, but still offered.
    Retired {
        /// Name of the level.
        name: LevelName,
        /// Its quota, which its users keep.
        quota: Ap,
    },
}

/// What applying the configuration would change about a level's part of a meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterDifference {
    /// The meter.
    pub meter: MeterName,
    /// The level.
    pub level: LevelName,
    /// Quota and limits in the installation; `None` if it has none.
    pub from: Option<LevelTerms>,
    /// The configured ones.
    pub to: LevelTerms,
}

impl LevelDifference {
    /// Name of the level.
    #[must_use]
    pub const fn name(&self) -> &LevelName {
        match self {
            Self::Added { name, .. } | Self::Changed { name, .. } | Self::Retired { name, .. } => name,
        }
    }
}

impl Levels {
    /// Returns what applying this configuration would change.
    #[must_use]
    pub fn differences(&self, configured: &[(LevelName, LevelTerms)]) -> Vec<LevelDifference> {
        let added_or_changed = configured.iter().filter_map(|(name, terms)| {
            let (name, terms) = (name.clone(), terms.clone());
            match self.offered(name.as_str()) {
                None => Some(LevelDifference::Added { name, terms }),
                Some(level) if level.terms() != terms => {
                    Some(LevelDifference::Changed { name, from: level.terms(), to: terms })
                }
                Some(_) => None,
            }
        });
        let retired = self.iter().filter(|level| configured.iter().all(|(name, _)| *name != level.name));
        let retired = retired.map(|level| LevelDifference::Retired { name: level.name.clone(), quota: level.quota });
        added_or_changed.chain(retired).collect()
    }

    /// Returns what applying these meters would change. A meter that is not configured keeps its quotas.
    #[must_use]
    pub fn meter_differences(&self, configured: &[MeterLevels]) -> Vec<MeterDifference> {
        let each = configured.iter().flat_map(|meter| meter.levels.iter().map(move |(level, to)| (meter, level, to)));
        let difference = |(meter, level, to): (&MeterLevels, &LevelName, &LevelTerms)| {
            let known = self.meters().iter().find(|known| known.name == meter.name);
            let code = self.named(level.as_str()).map(|level| level.code);
            let from = known.zip(code).and_then(|(known, code)| known.terms(code)).cloned();
            let differs = from.as_ref() != Some(to);
            differs.then(|| MeterDifference { meter: meter.name.clone(), level: level.clone(), from, to: to.clone() })
        };
        each.filter_map(difference).collect()
    }
}

impl fmt::Display for MeterDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { meter, level, from, to } = self;
        match from {
            None => write!(f, "{meter} of {level}: new, {to}"),
            Some(from) => write!(f, "{meter} of {level}: {to} instead of {from}"),
        }
    }
}

impl fmt::Display for LevelDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { name, terms } => write!(f, "{name}: new, {terms}"),
            Self::Changed { name, from, to } => write!(f, "{name}: {to} instead of {from}"),
            Self::Retired { name, quota } => write!(f, "{name}: retired; its users keep it and its {quota} AP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        level::{Level, LevelCode},
        window::LevelLimits,
    };

    #[test]
    fn each_difference_is_named_once() {
        let level = |code, name, quota, retired| Level {
            code: LevelCode::new(code).unwrap(),
            name: LevelName::parse(name).unwrap(),
            quota: Ap::new(quota),
            limits: LevelLimits::default(),
            retired,
        };
        let given = vec![
            level(1, "free", 100, false),
            level(2, "basic", 300, false),
            level(3, "old", 5, true),
            level(4, "plus", 9, false),
        ];
        let levels = Levels::new(1, given).unwrap();
        let configured = [("free", 100), ("basic", 200), ("old", 6), ("gold", 7)];
        let configured =
            configured.map(|(name, quota)| (LevelName::parse(name).unwrap(), LevelTerms::from(Ap::new(quota))));
        let found: Vec<String> = levels.differences(&configured).iter().map(ToString::to_string).collect();
        let expected = [
            "basic: 200 AP instead of 300 AP",
            "old: new, 6 AP",
            "gold: new, 7 AP",
            "plus: retired; its users keep it and its 9 AP",
        ];
        assert_eq!(found, expected);
    }
}
