//! The built-in schedule: the resetter once a day.

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

use super::resetter::{Resetter, Trigger};
use crate::domain::{clock::Clock, daily_at::DailyAt};

/// Runs the resetter every day at this time, until cancelled.
pub async fn run(resetter: Resetter, at: DailyAt, clock: Clock, cancelled: CancellationToken) {
    loop {
        let now = clock.now();
        let wait = (at.next_after(now) - now).to_std().unwrap_or_default();
        select! {
            () = sleep(wait) => {}
            () = cancelled.cancelled() => return,
        }
        if let Err(error) = resetter.run(Trigger::Schedule).await {
            tracing::error!(%error, "the scheduled reset failed; users reset as they come, the next run is tomorrow");
        }
    }
}
