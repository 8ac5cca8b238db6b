//! Support for all tests: real servers, one database per test, and waiting for conditions instead of sleeping.
//!
//! One Postgres serves the whole test process, because starting one takes a second; each test has its own database in
//! it. A redis-server takes 30 ms, so each test has its own. All are removed when the process ends, however it ends.

mod detour;
mod gates;
mod postgres;
mod redis;

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quota_gate_dev::ScratchDir;
use tokio::time::{Instant, sleep};

pub(crate) use self::{
    detour::Detour,
    gates::{GateUnderTest, Tuning, World, consume, key, levels, repeat, reserve, user},
    postgres::{database, execute, migrate, migrated_copy, postgres, postgres_options},
    redis::{redis, redis_like, redis_options, replica_of, send},
};

/// Longer than any condition takes on a loaded machine, so it is reached only by one that never holds.
const EVENTUALLY_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the condition holds.
///
/// # Panics
/// After 20 seconds, naming `what`.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + EVENTUALLY_MAX;
    while !condition().await {
        assert!(Instant::now() < deadline, "did not happen within {EVENTUALLY_MAX:?}: {what}");
        sleep(PAUSE).await;
    }
}

/// Returns a unique path for a directory, which is removed when the test process ends.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static SCRATCH: OnceLock<ScratchDir> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let scratch = SCRATCH.get_or_init(|| ScratchDir::new().unwrap());
    scratch.path().join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}
