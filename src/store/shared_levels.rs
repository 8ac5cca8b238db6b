//! The current levels, shared by the code that decides by them.

use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::level::Levels;

/// The current levels. All clones share them.
#[derive(Debug, Clone)]
pub struct SharedLevels(Arc<RwLock<Levels>>);

impl SharedLevels {
    /// Creates shared levels with this value.
    #[must_use]
    pub fn new(levels: Levels) -> Self {
        Self(Arc::new(RwLock::new(levels)))
    }

    /// Returns a copy of the current levels. Cheap, and unaffected by later changes.
    #[must_use]
    pub fn get(&self) -> Levels {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the levels.
    pub fn set(&self, levels: Levels) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = levels;
    }
}
