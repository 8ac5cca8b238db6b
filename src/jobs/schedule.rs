//! The resetter's schedule: one run every day.

use std::time::Duration;

use super::{
    job::{Job, Next, Pace, StepError},
    resetter::{Resetter, Trigger},
};
use crate::domain::daily_at::DailyAt;

/// A run over all users may take long. Each of its transactions has a bound of its own.
const RUN_MAX: Duration = Duration::from_hours(6);

/// Runs the resetter every day at one time.
#[derive(Debug, Clone)]
pub struct DailyReset {
    resetter: Resetter,
    at: DailyAt,
    is_due: bool,
}

impl Job for DailyReset {
    fn name(&self) -> &'static str {
        "resetter"
    }

    fn pace(&self) -> Pace {
        Pace { pause: Duration::from_mins(1), retry_pause_max: Duration::from_hours(1), step_max: RUN_MAX }
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if self.is_due {
            self.resetter.run(Trigger::Schedule).await?;
        }
        self.is_due = true;
        let now = self.resetter.now();
        Ok(Next::After((self.at.next_after(now) - now).to_std().unwrap_or_default()))
    }
}

impl DailyReset {
    /// Runs this resetter every day at `at`.
    #[must_use]
    pub const fn new(resetter: Resetter, at: DailyAt) -> Self {
        Self { resetter, at, is_due: false }
    }
}
