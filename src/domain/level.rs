//! Membership levels and their quotas.

use std::sync::Arc;

use super::{InvalidInput, ap::Ap, text::text_type};

text_type! {
    /// A level's name as configured: 1 to 32 characters of `a-z 0-9 _ -`.
    pub struct LevelName;
    field: "membershipLevel",
    must_be: "1 to 32 characters of a-z 0-9 _ -",
    is_valid: |name| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        (1..=32).contains(&name.len()) && name.bytes().all(allowed)
    },
}

/// The number that stands for a level in Redis records and usage events.
///
/// Postgres assigns it permanently, so reordering the levels in the configuration changes no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LevelCode(u8);

/// One membership level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Number in Redis.
    pub code: LevelCode,
    /// Name.
    pub name: LevelName,
    /// AP per period.
    pub quota: Ap,
}

/// All levels, lowest first. A new user gets the lowest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(Arc<[Level]>);

impl LevelCode {
    /// Creates a code. Codes start at 1; 0 means "no level" in a record.
    #[must_use]
    pub const fn new(code: u8) -> Option<Self> {
        if code == 0 { None } else { Some(Self(code)) }
    }

    /// The code as a number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Levels {
    /// Maximum number of levels: a code is one byte, and each Redis call contains every quota.
    pub const COUNT_MAX: usize = 32;

    /// Sorts levels by quota, lowest first (ties by code).
    ///
    /// # Errors
    /// If there are no levels or more than 32, or two share a name or a code.
    pub fn new(mut levels: Vec<Level>) -> Result<Self, InvalidInput> {
        if levels.is_empty() || levels.len() > Self::COUNT_MAX {
            return Err(InvalidInput::new(
                "levels",
                format!("must be 1 to {} levels, not {}", Self::COUNT_MAX, levels.len()),
            ));
        }
        for (i, level) in levels.iter().enumerate() {
            if levels[..i].iter().any(|other| other.name == level.name || other.code == level.code) {
                return Err(InvalidInput::new("levels", format!("level {} appears twice", level.name)));
            }
        }
        levels.sort_by_key(|level| (level.quota, level.code));
        Ok(Self(levels.into()))
    }

    /// All levels, lowest first.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Level> {
        self.0.iter()
    }

    /// The level of a new user: the lowest.
    #[must_use]
    pub fn lowest(&self) -> &Level {
        &self.0[0]
    }

    /// The level with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Level> {
        self.0.iter().find(|level| level.name.as_str() == name)
    }

    /// The level with this code.
    #[must_use]
    pub fn coded(&self, code: LevelCode) -> Option<&Level> {
        self.0.iter().find(|level| level.code == code)
    }

    /// The level to recommend: the next one with more than `quota`, if any.
    #[must_use]
    pub fn next_above(&self, quota: Ap) -> Option<&Level> {
        self.0.iter().find(|level| level.quota > quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(code: u8, name: &str, quota: u32) -> Level {
        Level { code: LevelCode::new(code).unwrap(), name: LevelName::parse(name).unwrap(), quota: Ap::new(quota) }
    }

    #[test]
    fn levels_are_ordered_by_quota_and_recommend_the_next_one() {
        let levels = Levels::new(vec![
            level(4, "pro", 3000),
            level(1, "free", 100),
            level(3, "plus", 1000),
            level(2, "basic", 300),
        ])
        .unwrap();
        assert_eq!(levels.lowest().name.as_str(), "free");
        assert_eq!(levels.next_above(Ap::new(300)).unwrap().name.as_str(), "plus");
        assert_eq!(levels.next_above(Ap::new(3000)), None);
        assert_eq!(levels.coded(LevelCode::new(2).unwrap()).unwrap().name.as_str(), "basic");
    }

    #[test]
    fn duplicates_and_empty_lists_are_refused() {
        assert!(Levels::new(vec![]).is_err());
        assert!(Levels::new(vec![level(1, "free", 1), level(1, "basic", 2)]).is_err());
        assert!(Levels::new(vec![level(1, "free", 1), level(2, "free", 2)]).is_err());
    }
}
