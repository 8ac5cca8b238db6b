//! A job: an idempotent step that is repeated. This file has the loop of all jobs; each job's file has its step and its
//! bounds.

use std::{error::Error, time::Duration};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Why a step failed. The next step tries again.
pub type StepError = Box<dyn Error + Send + Sync>;

/// What a job does after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next step, without a pause: there is more to do.
    Immediately,
    /// The next step after the usual pause.
    AfterPause,
    /// The next step after this time, or when [`Job::woken`] resolves.
    After(Duration),
}

/// The bounds of a job's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Pause between two steps.
    pub pause: Duration,
    /// Longest pause after failed steps; it doubles from `pause` on.
    pub retry_pause_max: Duration,
    /// Longest time for one step. A step is cut off after it, because a store that hangs does not end it.
    pub step_max: Duration,
}

/// Repeated work beside the requests. Any number of processes may run the same job.
///
/// A clone is a job that starts anew: it replaces one that panicked.
pub trait Job: Clone + Send + 'static {
    /// The name in log lines and metrics, for example `flusher`.
    fn name(&self) -> &'static str;

    /// The bounds of its steps.
    fn pace(&self) -> Pace;

    /// One step. It may be cut off at any await, and repeated in any case.
    fn step(&mut self) -> impl Future<Output = Result<Next, StepError>> + Send;

    /// Resolves when the next step must not wait for the end of its pause.
    fn woken(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// The last work, once no step runs any more.
    fn finish(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Repeats the steps of a job until cancelled, then finishes it. Calls `before_step` with the job's name before each
/// step.
pub async fn repeat<J: Job>(mut job: J, cancelled: CancellationToken, before_step: &(dyn Fn(&'static str) + Sync)) {
    let (name, Pace { pause, retry_pause_max, step_max }) = (job.name(), job.pace());
    let mut failures: u32 = 0;
    while !cancelled.is_cancelled() {
        before_step(name);
        let outcome = select! {
            outcome = timeout(step_max, job.step()) => {
                outcome.unwrap_or_else(|_| Err(format!("the step took longer than {step_max:?}").into()))
            }
            // As by its time limit, a step may be cut off at any await. A store that hangs must not delay a shutdown.
            () = cancelled.cancelled() => break,
        };
        let wait = match outcome {
            Ok(next) => {
                if failures > 0 {
                    tracing::info!(job = name, failures, "the {name} works again");
                    failures = 0;
                }
                match next {
                    Next::Immediately => continue,
                    Next::AfterPause => jittered(pause),
                    Next::After(time) => time,
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 1 {
                    tracing::warn!(job = name, error, "the {name} failed; it tries again until it succeeds");
                } else {
                    tracing::debug!(job = name, error, failures, "the {name} failed again");
                }
                jittered(pause.saturating_mul(1 << failures.min(16)).min(retry_pause_max.max(pause)))
            }
        };
        select! {
            () = sleep(wait) => {}
            () = job.woken() => {}
            () = cancelled.cancelled() => {}
        }
    }
    job.finish().await;
}

/// Up to a tenth less, so that the processes of an installation do not ask the stores at the same moments.
fn jittered(pause: Duration) -> Duration {
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    pause.saturating_sub(pause * random / (10 * 256))
}
