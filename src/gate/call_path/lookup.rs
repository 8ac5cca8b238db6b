//! Looks up charges of requests with an Idempotency-Key, after Redis lost its answers: many requests in one query.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};
use tracing::Instrument;

use crate::{
    domain::{calendar::SKEW_MAX, clock::Clock},
    gate::GateError,
    store::postgres::{EarlierCharge, Postgres, SoughtCharge},
    task,
};

/// Maximum requests per query: enough to make the round trip cheap, few enough for an answer in milliseconds.
const REQUESTS_PER_QUERY_MAX: usize = 256;
/// Time limit for one query. A server that hangs does not end the query.
const QUERY_MAX: Duration = Duration::from_secs(3);
/// Maximum waiting requests. Beyond it they arrive faster than they are looked up: the gate refuses.
const QUEUE_LENGTH_MAX: usize = 8_192;

/// Looks up charges. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::gate) struct Lookups(mpsc::Sender<Job>);

#[derive(Debug)]
struct Job {
    sought: SoughtCharge,
    reply: oneshot::Sender<Result<EarlierCharge, GateError>>,
}

struct Worker {
    queue: Mutex<mpsc::Receiver<Job>>,
    postgres: Postgres,
    clock: Clock,
    /// How long keys are remembered.
    remembered: TimeDelta,
}

impl Lookups {
    pub(in crate::gate) fn start(postgres: &Postgres, clock: &Clock, remembered: Duration) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE_LENGTH_MAX);
        let worker = Arc::new(Worker {
            queue: Mutex::new(queue),
            postgres: postgres.clone(),
            clock: clock.clone(),
            remembered: TimeDelta::from_std(remembered).unwrap_or(TimeDelta::MAX),
        });
        tokio::spawn(task::keep_running("lookup", move || Arc::clone(&worker).run()));
        Self(sender)
    }

    /// Returns what Postgres knows about a request.
    pub(in crate::gate) async fn find(&self, sought: SoughtCharge) -> Result<EarlierCharge, GateError> {
        let (reply, found) = oneshot::channel();
        self.0
            .try_send(Job { sought, reply })
            .map_err(|_| GateError::unavailable("too many requests wait for a look-up in Postgres"))?;
        found.await.unwrap_or_else(|_| Err(GateError::unavailable("the look-up has stopped")))
    }
}

impl Worker {
    async fn run(self: Arc<Self>) {
        // Only this task reads the queue; after a panic, its replacement does.
        let mut queue = self.queue.lock().await;
        let mut jobs = Vec::with_capacity(REQUESTS_PER_QUERY_MAX);
        while queue.recv_many(&mut jobs, REQUESTS_PER_QUERY_MAX).await > 0 {
            let (sought, replies): (Vec<_>, Vec<_>) =
                jobs.drain(..).filter(|job| !job.reply.is_closed()).map(|job| (job.sought, job.reply)).unzip();
            if sought.is_empty() {
                continue;
            }
            let span = tracing::debug_span!("look up", requests = sought.len());
            let outcome = match timeout(QUERY_MAX, self.find(&sought).instrument(span)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(GateError::slow()),
            };
            // A caller that has gone needs no answer.
            match outcome {
                Ok(found) => replies.into_iter().zip(found).for_each(|(reply, found)| drop(reply.send(Ok(found)))),
                Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
            }
        }
    }

    async fn find(&self, sought: &[SoughtCharge]) -> Result<Vec<EarlierCharge>, GateError> {
        metrics::counter!("quota_gate_key_lookups_total").increment(sought.len() as u64);
        let now = self.clock.now();
        // Events have the time of Redis.
        Ok(self.postgres.find_charges(sought, (now - self.remembered, now + SKEW_MAX)).await?)
    }
}
