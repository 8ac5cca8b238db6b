//! What every test stands on: real servers, a database of its own, gates, and waiting for a condition instead of sleeping.

mod gates;
mod servers;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub(crate) use self::{
    gates::{GateUnderTest, World, consume, key, reserve, user},
    servers::{database_on, execute, postgres, redis},
};

/// Longer than anything here takes on a loaded machine; reached only when the condition does not come at all.
const EVENTUALLY_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// After twenty seconds, naming `what`.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + EVENTUALLY_MAX;
    while !condition().await {
        assert!(Instant::now() < deadline, "did not happen within {EVENTUALLY_MAX:?}: {what}");
        sleep(PAUSE).await;
    }
}
