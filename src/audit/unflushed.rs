//! What the journal after the watermark charges to a user.

use std::collections::HashMap;

use crate::domain::{calendar::Period, grant::GrantNumber, usage::UsageEvent, window::WindowState};

use super::window_difference;

/// Sums of a user's events that are not in Postgres yet.
#[derive(Default)]
pub(super) struct Unflushed {
    /// What the plan paid, by period.
    pub(super) plan: HashMap<Period, u64>,
    /// What grants paid.
    pub(super) grants: HashMap<GrantNumber, u64>,
    /// The newest windows, and what was counted in them.
    pub(super) windows: Vec<WindowState>,
    /// All AP.
    pub(super) total: u64,
}

impl Unflushed {
    /// Adds an event.
    pub(super) fn add(&mut self, event: &UsageEvent) {
        *self.plan.entry(event.period).or_default() += u64::from(event.plan_ap().get());
        for part in &event.grants {
            *self.grants.entry(part.number).or_default() += u64::from(part.ap.get());
        }
        window_difference::add(&mut self.windows, event);
        self.total += u64::from(event.ap.get());
    }
}
