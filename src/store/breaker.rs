//! The breaker: once a store is known to be away, nobody waits for it any more.
//!
//! It opens after a few failures in a row. From then on callers are refused at once, and one probe at a time, at jittered intervals,
//! finds out when the store is back; so a store that returns meets one connection, not a storm.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

/// So many failures in a row, of whichever callers, open it. One may be a connection that broke.
const FAILURES_MAX: u32 = 2;
/// Between two probes: at first, and at most. Half of it at random, so that the gates of an installation do not probe in step.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Tells whether a store is away. A cheap clone.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<State>);

#[derive(Debug)]
struct State {
    store: &'static str,
    failures: AtomicU32,
    open: AtomicBool,
}

impl Breaker {
    /// A closed one, of the store that logs and metrics call `store`.
    #[must_use]
    pub fn closed(store: &'static str) -> Self {
        metrics::gauge!("quota_gate_breaker_open", "store" => store).set(0);
        Self(Arc::new(State { store, failures: AtomicU32::new(0), open: AtomicBool::new(false) }))
    }

    /// The store is away: do not even ask.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// The store has answered.
    pub fn succeeded(&self) {
        if self.0.failures.load(Ordering::Relaxed) != 0 {
            self.0.failures.store(0, Ordering::Relaxed);
        }
    }

    /// The store has not answered. When this was once too often, `probe` is asked from here on until it says that the store is
    /// back.
    pub fn failed<P: Future<Output = bool> + Send + 'static>(&self, probe: impl Fn() -> P + Send + 'static) {
        if self.0.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES_MAX {
            return;
        }
        if self.0.open.swap(true, Ordering::AcqRel) {
            return;
        }
        metrics::gauge!("quota_gate_breaker_open", "store" => self.0.store).set(1);
        metrics::counter!("quota_gate_breaker_opened_total", "store" => self.0.store).increment(1);
        tracing::error!(store = self.0.store, "the store is away: requests that need it are refused until it is back");
        tokio::spawn(probe_until_back(Arc::downgrade(&self.0), probe));
    }
}

async fn probe_until_back<P: Future<Output = bool> + Send>(state: Weak<State>, probe: impl Fn() -> P + Send) {
    let mut pause = PAUSE_MIN;
    loop {
        sleep(pause / 2 + random_part(pause / 2)).await;
        // Whoever asked for the store is gone.
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
        tracing::info!(store = state.store, "the store is back");
    }
}

/// Up to `whole`. The randomness of an id is random enough.
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
    async fn one_failure_is_an_accident_and_two_in_a_row_are_not() {
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
    async fn it_closes_with_the_first_probe_that_succeeds_and_counts_anew() {
        let (breaker, probes) = (Breaker::closed("test"), Arc::new(AtomicU32::new(0)));
        for _ in 0..5 {
            let probes = Arc::clone(&probes);
            breaker.failed(move || {
                let probes = Arc::clone(&probes);
                async move { probes.fetch_add(1, Ordering::Relaxed) == 2 }
            });
        }
        closes(&breaker).await;
        assert_eq!(probes.load(Ordering::Relaxed), 3, "one probe at a time, however many failed");
        breaker.failed(|| async { false });
        assert!(!breaker.is_open());
    }

    #[tokio::test]
    async fn nobody_probes_for_a_gate_that_is_gone() {
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
        assert!(dropped.is_err(), "and drops what it held");
    }
}
