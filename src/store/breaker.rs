//! The breaker: refuses requests immediately while a store is unavailable.
//!
//! It opens after a few consecutive failures. Then probes, one at a time and at jittered intervals, detect when the
//! store is available again. So a recovering store receives one connection, not a storm of them.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

/// Consecutive failures, of any callers, that open the breaker. One failure may be a single broken connection.
const FAILURES_MAX: u32 = 2;
/// First and longest pause between probes. Half of it is random, so the gates of an installation do not probe in step.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Tracks whether a store is available. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<State>);

#[derive(Debug)]
struct State {
    store: &'static str,
    failures: AtomicU32,
    open: AtomicBool,
}

impl Breaker {
    /// Creates a closed breaker for the store with this name in logs and metrics.
    #[must_use]
    pub fn closed(store: &'static str) -> Self {
        metrics::gauge!("quota_gate_breaker_open", "store" => store).set(0);
        Self(Arc::new(State { store, failures: AtomicU32::new(0), open: AtomicBool::new(false) }))
    }

    /// Whether the breaker is open: the store is unavailable and must not be called.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// Records that the store has answered.
    pub fn succeeded(&self) {
        if self.0.failures.load(Ordering::Relaxed) != 0 {
            self.0.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Records that the store has not answered. If this opens the breaker, it calls `probe` until the result is true,
    /// then closes.
    pub fn failed<P: Future<Output = bool> + Send + 'static>(&self, probe: impl Fn() -> P + Send + 'static) {
        if self.0.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES_MAX {
            return;
        }
        if self.0.open.swap(true, Ordering::AcqRel) {
            return;
        }
        metrics::gauge!("quota_gate_breaker_open", "store" => self.0.store).set(1);
        metrics::counter!("quota_gate_breaker_opened_total", "store" => self.0.store).increment(1);
        tracing::error!(store = self.0.store, "the store is unavailable: requests that need it fail until it recovers");
        tokio::spawn(probe_until_back(Arc::downgrade(&self.0), probe));
    }
}

async fn probe_until_back<P: Future<Output = bool> + Send>(state: Weak<State>, probe: impl Fn() -> P + Send) {
    let mut pause = PAUSE_MIN;
    loop {
        sleep(pause / 2 + random_part(pause / 2)).await;
        // All clones of the breaker were dropped.
        if state.strong_count() == 0 {
            return;
        }
        if probe().await {
            break;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    if let Some(state) = state.upgrade() {
        state.failures.store(0, Ordering::Relaxed);
        state.open.store(false, Ordering::Release);
        metrics::gauge!("quota_gate_breaker_open", "store" => state.store).set(0);
        tracing::info!(store = state.store, "the store has recovered");
    }
}

/// A random duration up to `whole`. The randomness of a UUID suffices.
fn random_part(whole: Duration) -> Duration {
    let [random, ..] = uuid::Uuid::new_v4().into_bytes();
    whole * u32::from(random) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    async fn closes(breaker: &Breaker) {
        let closed = async {
            while breaker.is_open() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), closed).await.expect("the breaker closes");
    }

    #[tokio::test]
    async fn opens_after_two_consecutive_failures() {
        let breaker = Breaker::closed("test");
        let never = || async { false };
        breaker.failed(never);
        breaker.succeeded();
        breaker.failed(never);
        assert!(!breaker.is_open());
        breaker.failed(never);
        assert!(breaker.is_open());
    }

    #[tokio::test]
    async fn closes_after_the_first_successful_probe_and_resets_the_count() {
        let (breaker, probes) = (Breaker::closed("test"), Arc::new(AtomicU32::new(0)));
        for _ in 0..5 {
            let probes = Arc::clone(&probes);
            breaker.failed(move || {
                let probes = Arc::clone(&probes);
                async move { probes.fetch_add(1, Ordering::Relaxed) == 2 }
            });
        }
        closes(&breaker).await;
        assert_eq!(probes.load(Ordering::Relaxed), 3, "one probe at a time, whatever the number of failures");
        breaker.failed(|| async { false });
        assert!(!breaker.is_open());
    }

    #[tokio::test]
    async fn probing_ends_when_the_breaker_is_dropped() {
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
        let breaker = Breaker::closed("test");
        for _ in 0..2 {
            let ended = Arc::clone(&ended);
            breaker.failed(move || {
                let _kept = Arc::clone(&ended);
                async { false }
            });
        }
        drop((breaker, ended));
        let dropped = timeout(Duration::from_secs(10), end).await.expect("the probe ends");
        assert!(dropped.is_err(), "the probe is dropped");
    }
}
