//! A proposal: terms of levels, and prices of models.

use super::Prices;
use crate::domain::level::{LevelName, LevelTerms, Levels};

/// Levels and prices to replay the log with.
#[derive(Debug, Clone)]
pub struct Proposal {
    levels: Vec<(LevelName, LevelTerms)>,
    /// None: each message costs what it did.
    prices: Option<Prices>,
}

impl Proposal {
    /// Creates a proposal. Levels that are not in `levels` keep their present terms, as when levels are applied: those
    /// that are not listed are retired, and their users keep them. Without `prices`, each message costs what it did.
    #[must_use]
    pub fn new(present: &Levels, levels: Vec<(LevelName, LevelTerms)>, prices: Option<Prices>) -> Self {
        let kept = present.all().iter().filter(|level| levels.iter().all(|(name, _)| *name != level.name));
        let kept = kept
            .map(|level| (level.name.clone(), LevelTerms { quota: level.quota, limits: level.limits.clone() }))
            .collect::<Vec<_>>();
        let mut levels: Vec<(LevelName, LevelTerms)> = kept.into_iter().chain(levels).collect();
        levels
            .sort_by(|(one, terms), (other, others)| (terms.quota, one.as_str()).cmp(&(others.quota, other.as_str())));
        Self { levels, prices }
    }

    pub(super) fn into_parts(self) -> (Vec<(LevelName, LevelTerms)>, Option<Prices>) {
        (self.levels, self.prices)
    }
}
