//! The supervisor: logs, counts and restarts a task that panics or ends, and reports one that keeps failing.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::task;

/// Pause before the first restart; it doubles.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// Restarts in a row before a task counts as failed. With the pauses that takes six seconds.
const RESTARTS_MAX: u32 = 6;
/// A task that ran for this long is healthy: its restarts are counted from zero again.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// A task that failed again after each restart. The process should end: what the task did is not done any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task {name} failed again after {RESTARTS_MAX} restarts in a row, last with: {reason}")]
pub struct TaskFailed {
    /// The task.
    pub name: &'static str,
    /// What ended it last.
    pub reason: String,
}

/// Named tasks, and what becomes of them.
#[derive(Debug)]
pub(super) struct Supervisor {
    tasks: Mutex<JoinSet<()>>,
    failed: watch::Sender<Option<TaskFailed>>,
}

impl Supervisor {
    pub(super) fn new() -> Self {
        Self { tasks: Mutex::default(), failed: watch::Sender::new(None) }
    }

    /// Runs what `start` makes, and again whenever it ends before `stop` is cancelled.
    pub(super) fn keep<F>(&self, name: &'static str, stop: CancellationToken, start: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let restarts = task::restarts(name);
        let failed = self.failed.clone();
        self.tasks().spawn(async move {
            let mut in_a_row = 0;
            loop {
                let began = Instant::now();
                let ended = task::caught(start()).await;
                if stop.is_cancelled() {
                    return;
                }
                let reason = ended.err().unwrap_or_else(|| "ended".to_owned());
                restarts.increment(1);
                in_a_row = if began.elapsed() >= HEALTHY_AFTER { 1 } else { in_a_row + 1 };
                if in_a_row > RESTARTS_MAX {
                    tracing::error!(job = name, reason, "a task keeps failing");
                    failed.send_replace(Some(TaskFailed { name, reason }));
                    return;
                }
                tracing::error!(job = name, reason, in_a_row, "a task failed; it is started again");
                select! {
                    () = sleep(RESTART_PAUSE * (1 << (in_a_row - 1))) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    /// Resolves when a task keeps failing.
    pub(super) async fn failed(&self) -> TaskFailed {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|failed| failed.clone()) {
            Ok(Some(failed)) => failed,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Waits for all tasks, whose `stop` tokens must have been cancelled. Aborts those that have not ended at the
    /// deadline, and returns their number.
    pub(super) async fn join(&self, deadline: Instant) -> usize {
        let mut tasks = std::mem::take(&mut *self.tasks());
        let all = async { while tasks.join_next().await.is_some() {} };
        // Dropping the set aborts what is left in it.
        if timeout_at(deadline, all).await.is_ok() { 0 } else { tasks.len() }
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_and_one_that_ends_are_started_again() {
        let (supervisor, stop) = (Supervisor::new(), CancellationToken::new());
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        supervisor.keep("flaky", stop.clone(), move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match start {
                    0 => panic!("on purpose"),
                    1 => {}
                    _ => std::future::pending().await,
                }
            }
        });
        while starts.load(Ordering::Relaxed) < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
        assert_eq!(
            supervisor.join(Instant::now() + Duration::from_secs(1)).await,
            1,
            "the third one has to be aborted"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_keeps_failing_is_reported_with_its_reason() {
        let supervisor = Supervisor::new();
        supervisor.keep("broken", CancellationToken::new(), || async { panic!("cannot {}", "work") });
        let expected = TaskFailed { name: "broken", reason: "panicked: cannot work".into() };
        assert_eq!(supervisor.failed().await, expected);
    }
}
