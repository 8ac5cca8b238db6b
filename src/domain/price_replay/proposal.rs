//! A proposal: terms of levels, and prices of models.

use super::{Prices, Window};
use crate::domain::{InvalidInput, level::Levels};

/// Terms of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelTerms {
    /// Name.
    pub name: String,
    /// AP per period.
    pub quota: u32,
    /// Windows, in the order of the proposal.
    pub windows: Vec<Window>,
}

/// Levels and prices to replay the log with.
#[derive(Debug, Clone)]
pub struct Proposal {
    levels: Vec<LevelTerms>,
    /// None: each message costs what it did.
    prices: Option<Prices>,
}

impl LevelTerms {
    /// Maximum number of windows of a level.
    pub const WINDOWS_MAX: usize = 8;

    /// Checks the windows.
    ///
    /// # Errors
    /// If there are too many, or two have the same length and unit.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let invalid = |rule| Err(InvalidInput { field: "windows", rule });
        if self.windows.len() > Self::WINDOWS_MAX {
            return invalid(format!("a level has at most {}", Self::WINDOWS_MAX));
        }
        for (place, window) in self.windows.iter().enumerate() {
            if self.windows[..place].iter().any(|other| other.key() == window.key()) {
                return invalid(format!("{window} is listed twice"));
            }
        }
        Ok(())
    }
}

impl Proposal {
    /// Creates a proposal. Levels that are not in `levels` keep their present quotas, as when levels are applied: those
    /// that are not listed are retired, and their users keep them. Without `prices`, each message costs what it did.
    ///
    /// # Errors
    /// If the windows of a level are invalid.
    pub fn new(present: &Levels, levels: Vec<LevelTerms>, prices: Option<Prices>) -> Result<Self, InvalidInput> {
        for level in &levels {
            level.check().map_err(|error| InvalidInput::new("levels", format!("{}.{error}", level.name)))?;
        }
        let kept = present.all().iter().filter(|level| levels.iter().all(|other| other.name != level.name.as_str()));
        let kept = kept.map(|level| LevelTerms {
            name: level.name.to_string(),
            quota: level.quota.get(),
            windows: Vec::new(),
        });
        let mut levels: Vec<LevelTerms> = kept.collect::<Vec<_>>().into_iter().chain(levels).collect();
        levels.sort_by(|one, other| (one.quota, &one.name).cmp(&(other.quota, &other.name)));
        Ok(Self { levels, prices })
    }

    pub(super) fn into_parts(self) -> (Vec<LevelTerms>, Option<Prices>) {
        (self.levels, self.prices)
    }
}
