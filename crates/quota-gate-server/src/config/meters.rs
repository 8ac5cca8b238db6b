//! A meter of `[meters]`: what is counted beside messages of the chat.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Config, ConfigError, LevelSection};
use quota_gate::domain::{
    InvalidInput,
    hold::Ttl,
    level::LevelName,
    meter::{MeterLevels, MeterName},
};

/// A meter as `config/default.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml describes each setting")]
pub struct MeterSection {
    pub unit: String,
    #[serde(default = "hold_seconds_max")]
    pub hold_seconds_max: u32,
    #[serde(default = "default_cost")]
    pub default_cost: u32,
    pub levels: BTreeMap<String, LevelSection>,
}

const fn hold_seconds_max() -> u32 {
    Ttl::SECONDS_MAX
}

const fn default_cost() -> u32 {
    1
}

impl Config {
    /// Returns names, quotas and limits of the meters beside the chat.
    ///
    /// # Errors
    /// If a name, unit or limit is invalid, or a meter does not list exactly the levels of `[levels]`.
    pub fn meters(&self) -> Result<Vec<MeterLevels>, ConfigError> {
        self.meters.iter().map(|(name, section)| self.meter(name, section)).collect()
    }

    fn meter(&self, name: &str, section: &MeterSection) -> Result<MeterLevels, ConfigError> {
        let wrong = |setting: String, problem: String| ConfigError::Invalid { setting, problem };
        let named = MeterName::parse(name).map_err(|error| wrong(format!("meters.{name}"), error.rule))?;
        if !(1..=32).contains(&section.unit.chars().count()) || section.unit.chars().any(char::is_control) {
            return Err(wrong(format!("meters.{name}.unit"), "must have 1 to 32 characters".into()));
        }
        let setting = || format!("meters.{name}.levels");
        if let Some(level) = self.levels.keys().find(|level| !section.levels.contains_key(*level)) {
            return Err(wrong(setting(), format!("must list every level: {level} is missing; 0 for none")));
        }
        if let Some(level) = section.levels.keys().find(|level| !self.levels.contains_key(*level)) {
            return Err(wrong(setting(), format!("{level} is no level of [levels]")));
        }
        let levels = section.levels.iter().map(|(level, terms)| Ok((LevelName::parse(level)?, terms.terms()?)));
        let levels = levels.collect::<Result<_, InvalidInput>>().map_err(|error| wrong(setting(), error.rule))?;
        Ok(MeterLevels { name: named, levels })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::from_toml;

    const LEVELS: &str = "free = 10, basic = 20, plus = { ap = 30, concurrency = 2 }, pro = 40";

    #[test]
    fn a_meter_has_a_quota_of_each_level() {
        let text = format!("[meters.image]\nunit = \"image\"\nlevels = {{ {LEVELS} }}");
        let config = from_toml(&text).unwrap();
        let meters = config.meters().unwrap();
        let quotas: Vec<String> = meters[0].levels.iter().map(|(level, terms)| format!("{level} {terms}")).collect();
        assert_eq!(quotas, ["basic 20 AP", "free 10 AP", "plus 30 AP, 2 concurrent", "pro 40 AP"]);
        assert_eq!((config.meters["image"].hold_seconds_max, config.meters["image"].default_cost), (900, 1));
        config.check_ranges().unwrap();
        assert_eq!(from_toml("").unwrap().meters().unwrap(), []);
    }

    #[test]
    fn what_is_wrong_with_a_meter_is_named() {
        let with = |name: &str, unit: &str, levels: &str, rest: &str| {
            format!("[meters.{name}]\nunit = \"{unit}\"\nlevels = {{ {levels} }}\n{rest}")
        };
        for (text, error) in [
            (with("chat", "u", LEVELS, ""), "meters.chat must be a lower-case letter"),
            (with("Image", "u", LEVELS, ""), "meters.Image must be a lower-case letter"),
            (with("image", "", LEVELS, ""), "meters.image.unit must have 1 to 32 characters"),
            (with("image", "u", "free = 1", ""), "meters.image.levels must list every level: basic is missing"),
            (with("image", "u", &format!("{LEVELS}, gold = 1"), ""), "gold is no level of [levels]"),
        ] {
            let refused = from_toml(&text).unwrap().meters().unwrap_err().to_string();
            assert!(refused.contains(error), "{refused}");
        }
        for (rest, error) in [
            ("hold_seconds_max = 86401", "meters.image.hold_seconds_max must be 1 to 86400, not 86401"),
            ("hold_seconds_max = 0", "meters.image.hold_seconds_max must be 1 to 86400, not 0"),
            ("default_cost = 0", "meters.image.default_cost must be 1 to 1000000, not 0"),
        ] {
            let refused = from_toml(&with("image", "u", LEVELS, rest)).unwrap().check_ranges().unwrap_err();
            assert!(refused.to_string().contains(error), "{refused}");
        }
    }
}
