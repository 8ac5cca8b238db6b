//! Tasks that outlive a panic.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::sleep;

/// Pause before a task is started again. A task that panics at each request must not take a whole processor.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Runs a future to its end; a panic is an error with the panic's text.
pub(crate) async fn caught(future: impl Future<Output = ()>) -> Result<(), String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| format!("panicked: {}", message(&*panic)))
}

/// Runs what `start` makes until it ends, and again after each panic.
pub(crate) async fn keep_running<F: Future<Output = ()>>(name: &'static str, start: impl Fn() -> F) {
    let restarts = restarts(name);
    while let Err(reason) = caught(start()).await {
        restarts.increment(1);
        tracing::error!(job = name, reason, "a task failed; it is started again");
        sleep(RESTART_PAUSE).await;
    }
}

/// Counts restarts; 0 from the start.
pub(crate) fn restarts(name: &'static str) -> metrics::Counter {
    let restarts = metrics::counter!("quota_gate_job_restarts_total", "job" => name);
    restarts.increment(0);
    restarts
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_runs_again_after_a_panic_and_not_after_its_end() {
        let starts = AtomicU32::new(0);
        keep_running("test", async || assert!(starts.fetch_add(1, Ordering::Relaxed) >= 2, "not yet")).await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert_eq!(caught(async { panic!("cannot {}", "work") }).await, Err("panicked: cannot work".to_owned()));
    }
}
