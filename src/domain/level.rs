//! Membership levels and their quotas.

use std::{fmt, sync::Arc};

use super::{
    InvalidInput,
    ap::Ap,
    meter::{Meter, MeterCode},
    text::text_type,
    window::LevelLimits,
};

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
    /// Windows and concurrency.
    pub limits: LevelLimits,
    /// Whether it is not offered any more. Users who have it keep its name and quota.
    pub retired: bool,
}

/// Quota and limits of a level, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelTerms {
    /// AP per period.
    pub quota: Ap,
    /// Windows and concurrency.
    pub limits: LevelLimits,
}

/// All levels of the installation at one version, retired ones too. A new user gets the lowest that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    version: u32,
    /// The offered levels, lowest first; then the retired ones.
    all: Arc<[Level]>,
    offered: usize,
    /// All meters but that of the chat, whose quotas are those of the levels; by code.
    meters: Arc<[Meter]>,
}

impl fmt::Display for LevelTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} AP{}", self.quota, self.limits)
    }
}

impl Level {
    /// Quota and limits of the level.
    #[must_use]
    pub fn terms(&self) -> LevelTerms {
        LevelTerms { quota: self.quota, limits: self.limits.clone() }
    }
}

impl From<Ap> for LevelTerms {
    /// A quota without other limits.
    fn from(quota: Ap) -> Self {
        Self { quota, limits: LevelLimits::default() }
    }
}

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
    /// Maximum number of levels, retired ones included: a code is one byte, and stays assigned for ever.
    pub const COUNT_MAX: usize = 255;

    /// Sorts levels by quota, lowest first (ties by code).
    ///
    /// # Errors
    /// If no level is offered, there are more than 255, or two share a name or a code.
    pub fn new(version: u32, mut levels: Vec<Level>) -> Result<Self, InvalidInput> {
        let offered = levels.iter().filter(|level| !level.retired).count();
        if offered == 0 || levels.len() > Self::COUNT_MAX {
            let count = levels.len();
            let rule = format!("must be 1 to {} levels, not {count} of which {offered} are offered", Self::COUNT_MAX);
            return Err(InvalidInput::new("levels", rule));
        }
        for (i, level) in levels.iter().enumerate() {
            if levels[..i].iter().any(|other| other.name == level.name || other.code == level.code) {
                return Err(InvalidInput::new("levels", format!("level {} appears twice", level.name)));
            }
        }
        levels.sort_by_key(|level| (level.retired, level.quota, level.code));
        Ok(Self { version, all: levels.into(), offered, meters: Arc::new([]) })
    }

    /// The same levels, with the quotas that they have of these meters.
    #[must_use]
    pub fn with_meters(self, mut meters: Vec<Meter>) -> Self {
        meters.sort_by_key(|meter| meter.code);
        Self { meters: meters.into(), ..self }
    }

    /// All meters but that of the chat, also those that are not configured any more.
    #[must_use]
    pub fn meters(&self) -> &[Meter] {
        &self.meters
    }

    /// The meter with this code, unless it is that of the chat.
    #[must_use]
    pub fn meter(&self, code: MeterCode) -> Option<&Meter> {
        self.meters.iter().find(|meter| meter.code == code)
    }

    /// Quota and limits of a level on a meter, if it has any.
    #[must_use]
    pub fn terms_on(&self, meter: MeterCode, level: LevelCode) -> Option<LevelTerms> {
        if meter.is_chat() { self.coded(level).map(Level::terms) } else { self.meter(meter)?.terms(level).cloned() }
    }

    /// The quota of a level on a meter; 0 if it has none.
    #[must_use]
    pub fn quota_on(&self, meter: MeterCode, level: LevelCode) -> Ap {
        self.terms_on(meter, level).map_or(Ap::ZERO, |terms| terms.quota)
    }

    /// The number of the change that made them so. A later change has a higher one.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The levels that are offered, lowest first.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Level> {
        self.all[..self.offered].iter()
    }

    /// All levels, retired ones last.
    #[must_use]
    pub fn all(&self) -> &[Level] {
        &self.all
    }

    /// The level of a new user: the lowest that is offered.
    #[must_use]
    pub fn lowest(&self) -> &Level {
        &self.all[0]
    }

    /// The level with this name, also if it is retired.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Level> {
        self.all.iter().find(|level| level.name.as_str() == name)
    }

    /// The level with this name, if it is offered.
    #[must_use]
    pub fn offered(&self, name: &str) -> Option<&Level> {
        self.iter().find(|level| level.name.as_str() == name)
    }

    /// The level with this code, also if it is retired.
    #[must_use]
    pub fn coded(&self, code: LevelCode) -> Option<&Level> {
        self.all.iter().find(|level| level.code == code)
    }

    /// The level to recommend: the next one on offer with more than `quota`, if any.
    #[must_use]
    pub fn next_above(&self, quota: Ap) -> Option<&Level> {
        self.next_above_on(quota, MeterCode::CHAT)
    }

    /// The same for a meter: the one on offer with the smallest quota above `quota`.
    #[must_use]
    pub fn next_above_on(&self, quota: Ap, meter: MeterCode) -> Option<&Level> {
        let above = self.iter().filter(|level| self.quota_on(meter, level.code) > quota);
        above.min_by_key(|level| self.quota_on(meter, level.code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(code: u8, name: &str, quota: u32) -> Level {
        let (code, name) = (LevelCode::new(code).unwrap(), LevelName::parse(name).unwrap());
        Level { code, name, quota: Ap::new(quota), limits: LevelLimits::default(), retired: false }
    }

    #[test]
    fn levels_are_ordered_by_quota_and_recommend_the_next_one() {
        let given = vec![level(4, "pro", 3000), level(1, "free", 100), level(3, "plus", 1000), level(2, "basic", 300)];
        let levels = Levels::new(1, given).unwrap();
        assert_eq!(levels.lowest().name.as_str(), "free");
        assert_eq!(levels.next_above(Ap::new(300)).unwrap().name.as_str(), "plus");
        assert_eq!(levels.next_above(Ap::new(3000)), None);
        assert_eq!(levels.coded(LevelCode::new(2).unwrap()).unwrap().name.as_str(), "basic");
    }

    #[test]
    fn duplicates_and_empty_lists_are_refused() {
        assert!(Levels::new(1, vec![]).is_err());
        assert!(Levels::new(1, vec![Level { retired: true, ..level(1, "free", 1) }]).is_err());
        assert!(Levels::new(1, vec![level(1, "free", 1), level(1, "basic", 2)]).is_err());
        assert!(Levels::new(1, vec![level(1, "free", 1), level(2, "free", 2)]).is_err());
    }

    #[test]
    fn a_retired_level_is_known_and_not_offered() {
        let trial = Level { retired: true, ..level(1, "trial", 10) };
        let levels = Levels::new(1, vec![trial, level(2, "free", 100), level(3, "plus", 1000)]).unwrap();
        assert_eq!(levels.lowest().name.as_str(), "free");
        assert_eq!(levels.iter().count(), 2);
        assert_eq!(levels.next_above(Ap::new(5)).unwrap().name.as_str(), "free");
        assert!(levels.offered("trial").is_none() && levels.named("trial").is_some());
        assert_eq!(levels.coded(LevelCode::new(1).unwrap()).unwrap().name.as_str(), "trial");
    }
}
