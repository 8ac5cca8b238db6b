//! Closed loops: each caller waits for an answer before its next request.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::{task::JoinSet, time::sleep};

/// Work done by callers.
pub(crate) struct Work {
    /// Operations per second.
    pub(crate) rate: f64,
    /// Duration of each operation, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Work {
    /// Returns the latency below which this percentage of the calls stayed.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_percentile(percent))
    }
}

/// An empty histogram of nanoseconds, up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid")
}

/// Runs one task per caller until the time is over. `make` creates the caller with this number.
pub(crate) async fn work<C: AsyncCall>(callers: usize, time: Duration, make: impl Fn(usize) -> C) -> Work {
    work_with_pauses(callers, time, Duration::ZERO, make).await
}

/// Like [`work`], with a pause after each answer that is not part of the latency.
pub(crate) async fn work_with_pauses<C: AsyncCall>(
    callers: usize,
    time: Duration,
    pause: Duration,
    make: impl Fn(usize) -> C,
) -> Work {
    let started = Instant::now();
    let end = started + time;
    let mut tasks = JoinSet::new();
    for number in 0..callers {
        let mut caller = make(number);
        tasks.spawn(async move {
            let mut latency = histogram();
            let mut before = Instant::now();
            while before < end {
                caller.act().await;
                let after = Instant::now();
                latency.saturating_record(nanoseconds(after - before));
                before = after;
                if !pause.is_zero() {
                    sleep(pause).await;
                    before = Instant::now();
                }
            }
            latency
        });
    }
    let mut latency = histogram();
    while let Some(one) = tasks.join_next().await {
        latency += one.expect("no caller fails");
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
    let rate = latency.len() as f64 / started.elapsed().as_secs_f64();
    Work { rate, latency }
}

/// One caller.
pub(crate) trait AsyncCall: Send + 'static {
    /// Sends one request and waits for the answer. Panics if the answer is unexpected.
    fn act(&mut self) -> impl Future<Output = ()> + Send;
}

/// A caller made of a closure.
pub(crate) struct Act<F>(pub(crate) F);

impl<F, T> AsyncCall for Act<F>
where
    F: FnMut() -> T + Send + 'static,
    T: Future<Output = ()> + Send,
{
    fn act(&mut self) -> impl Future<Output = ()> + Send {
        (self.0)()
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
