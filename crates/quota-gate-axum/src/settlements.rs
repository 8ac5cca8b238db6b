//! The settlements that are under way.

use tokio_util::task::TaskTracker;

/// The settlements that are under way. A cheap clone.
#[derive(Debug, Clone, Default)]
pub struct Settlements(pub(crate) TaskTracker);

impl Settlements {
    /// Waits until all settlements are made, or accepted by Postgres. Call it at shutdown, after the last request has
    /// ended.
    pub async fn finished(&self) {
        self.0.close();
        self.0.wait().await;
        self.0.reopen();
    }

    /// Returns the number of settlements that are under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
