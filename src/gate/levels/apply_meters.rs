//! Changes the quotas that levels have of other meters than the chat.
//!
//! No user has to be moved: an operation on a record of a meter takes the quota from the levels in Redis.

use crate::{
    domain::{level_difference::MeterDifference, meter::MeterLevels},
    gate::{ApplyError, Gate},
};

impl Gate {
    /// Makes these meters' quotas and limits those of the installation, for every user now. A meter that is not in the
    /// list stays as it is. Returns what changed.
    ///
    /// # Errors
    /// If a store is unavailable, or there are too many meters. What was done stays done; apply again to finish.
    pub async fn apply_meters(&self, configured: &[MeterLevels]) -> Result<Vec<MeterDifference>, ApplyError> {
        let known_version = self.version_to_exceed().await?;
        let (_, differences) = self.0.postgres.change_meters(configured, known_version, self.now()).await?;
        if !differences.is_empty() {
            self.send_until_sent().await?;
        }
        Ok(differences)
    }
}
