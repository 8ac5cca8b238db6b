//! The batcher: combines concurrent requests into few script calls.
//!
//! Each partition has a queue and a few workers. A worker takes the waiting requests, makes one script call and answers
//! each caller. It does not wait for more: a lone request is sent immediately, and batches grow only with load.
//!
//! If a caller leaves before its request is sent, the request is dropped; once sent, the call is completed. While Redis
//! is unavailable, the breaker refuses requests.

use std::{sync::Arc, time::Duration};

use metrics::{Gauge, Histogram};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};
use tracing::{Instrument, Span};

use super::{
    connection::Redis,
    error::RedisError,
    fence::ServerId,
    generations::Generations,
    operation::Request,
    reply::{Answer, Reply},
    script::{Call, Context, Memory, Script},
    wire::{Received, Wire},
};
use crate::{
    domain::{
        calendar::Calendar,
        clock::Clock,
        partition::{Partition, Partitions},
    },
    store::breaker::Breaker,
    task,
};

/// Options of the batcher.
#[derive(Debug, Clone)]
pub struct BatcherOptions {
    /// Maximum requests per call.
    pub operations_max: usize,
    /// Maximum concurrent calls per partition.
    pub calls_in_flight_max: usize,
    /// Maximum waiting requests per partition; more are refused.
    pub queue_length_max: usize,
    /// Maximum wait in the queue; then the request is refused unsent.
    pub queue_timeout: Duration,
    /// Maximum memory of a partition's usage stream, as Redis' `MEMORY USAGE` estimates it. From there on new messages
    /// are refused until Postgres has caught up; holds are still settled.
    pub stream_bytes_max: u64,
    /// How long an idle connection is trusted to lead to the same Redis. Then it is checked before use.
    pub identity_trust: Duration,
}

impl Default for BatcherOptions {
    fn default() -> Self {
        Self {
            operations_max: 64,
            calls_in_flight_max: 1,
            queue_length_max: 4_096,
            queue_timeout: Duration::from_secs(1),
            stream_bytes_max: 64 << 20,
            // Too short to demote a primary, give it another's data and promote it again. Long enough that no call
            // checks under load.
            identity_trust: Duration::from_millis(500),
        }
    }
}

/// Sends requests to Redis. Cheap to clone; the workers end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Batcher {
    queues: Arc<[mpsc::Sender<Job>]>,
    queue_length_max: usize,
    breaker: Breaker,
}

#[derive(Debug)]
struct Job {
    request: Request,
    enqueued: Instant,
    /// Span of the caller.
    span: Span,
    reply: oneshot::Sender<Result<Option<Answer>, RedisError>>,
}

/// A connection, and the Redis that it leads to.
type Wired = (Wire, ServerId);

struct Worker {
    partition: Partition,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    redis: Redis,
    script: Script,
    breaker: Breaker,
    generations: Generations,
    clock: Clock,
    calendar: Calendar,
    options: BatcherOptions,
    metrics: BatchMetrics,
}

/// Metric handles. Looking a metric up at each call would cost more than recording it.
struct BatchMetrics {
    operations: Histogram,
    batch_seconds: Histogram,
    call_seconds: Histogram,
    queue_depth: Gauge,
}

impl Batcher {
    /// Starts the workers.
    #[must_use]
    pub fn start(
        redis: &Redis,
        script: &Script,
        partitions: Partitions,
        (clock, calendar): (&Clock, Calendar),
        generations: &Generations,
        options: &BatcherOptions,
    ) -> Self {
        let breaker = Breaker::closed("redis");
        let queues = partitions
            .all()
            .map(|partition| {
                let (sender, receiver) = mpsc::channel(options.queue_length_max);
                let queue = Arc::new(Mutex::new(receiver));
                for _ in 0..options.calls_in_flight_max {
                    let worker = Worker {
                        partition,
                        queue: Arc::clone(&queue),
                        redis: redis.clone(),
                        script: script.clone(),
                        breaker: breaker.clone(),
                        generations: generations.clone(),
                        clock: clock.clone(),
                        calendar,
                        options: options.clone(),
                        metrics: BatchMetrics::of(partition),
                    };
                    let worker = Arc::new(worker);
                    tokio::spawn(task::keep_running("batcher", move || Arc::clone(&worker).run()));
                }
                sender
            })
            .collect();
        Self { queues, queue_length_max: options.queue_length_max, breaker }
    }

    /// Executes one request. Returns none if Redis does not have the user's record.
    ///
    /// # Errors
    /// See [`RedisError`]. Only [`RedisError::Indeterminate`] leaves open whether the request was executed.
    pub async fn call(&self, partition: Partition, request: Request) -> Result<Option<Answer>, RedisError> {
        if self.breaker.is_open() {
            return Err(away());
        }
        let (reply, answer) = oneshot::channel();
        let job = Job { request, enqueued: Instant::now(), span: Span::current(), reply };
        self.queues[partition.index()].try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RedisError::Busy(self.queue_length_max),
            mpsc::error::TrySendError::Closed(_) => RedisError::NotExecuted("the gate is shutting down".into()),
        })?;
        answer.await.unwrap_or_else(|_| Err(RedisError::Indeterminate("the worker ended".into())))
    }
}

impl Worker {
    async fn run(self: Arc<Self>) {
        let operations_max = self.options.operations_max.min(Script::REQUESTS_MAX);
        let (mut wire, mut call) = (None, Call::default());
        let mut jobs = Vec::with_capacity(operations_max);
        loop {
            let mut queue = self.queue.lock().await;
            if queue.recv_many(&mut jobs, operations_max).await == 0 {
                return;
            }
            #[expect(clippy::cast_precision_loss, reason = "precise enough for a metric")]
            self.metrics.queue_depth.set(queue.len() as f64);
            drop(queue);
            let generation = self.generations.get(self.partition);
            let batch: Vec<Job> = jobs.drain(..).filter_map(|job| self.still_wanted(job, generation)).collect();
            if !batch.is_empty() {
                let oldest = batch.first().map(|job| job.enqueued);
                #[expect(clippy::cast_precision_loss, reason = "precise enough for a metric")]
                self.metrics.operations.record(batch.len() as f64);
                let span = tracing::debug_span!("batch", partition = %self.partition, requests = batch.len());
                if !span.is_disabled() {
                    for job in &batch {
                        span.follows_from(&job.span);
                    }
                }
                self.serve(&mut wire, &mut call, generation, batch).instrument(span).await;
                self.metrics.batch_seconds.record(oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed()));
            }
        }
    }

    /// Returns a job that must still be sent. Refuses it if the breaker is open, the wait was too long or the
    /// generation is another; drops it if the caller has left.
    fn still_wanted(&self, job: Job, generation: u32) -> Option<Job> {
        let waited = job.enqueued.elapsed();
        let refusal = if job.reply.is_closed() {
            return None;
        } else if self.breaker.is_open() {
            away()
        } else if waited > self.options.queue_timeout {
            RedisError::Waited(waited)
        } else if job.request.generation.is_some_and(|needed| needed != generation) {
            RedisError::Stale
        } else {
            return Some(job);
        };
        // This fails if the caller has left meanwhile. Then the answer is not needed.
        let _ = job.reply.send(Err(refusal));
        None
    }

    /// Calls the script for these jobs and answers their callers. While Redis' memory is full, it refuses new messages
    /// and users whose records it does not have. Settlements need little memory, and if Postgres is unavailable too,
    /// they cannot be accepted elsewhere.
    async fn serve(&self, wire: &mut Option<Wired>, call: &mut Call, generation: u32, mut batch: Vec<Job>) {
        let mut called = self.timed_call(wire, call, (generation, Memory::Limited), &batch).await;
        if let Err(full @ RedisError::OutOfMemory(_)) = &called {
            let (served, refused) = batch.into_iter().partition(|job| job.request.may_exceed_memory());
            refuse(refused, full);
            batch = served;
            if batch.is_empty() {
                return;
            }
            called = self.timed_call(wire, call, (generation, Memory::Unlimited), &batch).await;
        }
        let received = wire.as_ref().map(|(wire, _)| wire.received());
        let error = match (called, received) {
            (Ok(()), Some(Received::Text(bytes))) => {
                self.breaker.succeeded();
                let outcome = deliver(bytes, self.clock.now().timestamp_millis(), batch);
                if outcome == Delivered::Stale {
                    // The connection may lead to another Redis now. The next call connects and checks again.
                    *wire = None;
                }
                return;
            }
            (Ok(()), _) => RedisError::Indeterminate("the connection has no answer".into()),
            (Err(error), _) => error,
        };
        // Drop the connection: the answer may still arrive on it, and no caller waits for it.
        *wire = None;
        // A refusal proves that Redis is reachable.
        if matches!(error, RedisError::Away(_) | RedisError::Descriptors | RedisError::Indeterminate(_)) {
            let redis = self.redis.clone();
            self.breaker.failed(move || {
                let redis = redis.clone();
                async move { redis.serves().await }
            });
        }
        refuse(batch, &error);
    }

    async fn timed_call(
        &self,
        wire: &mut Option<Wired>,
        call: &mut Call,
        generation_and_memory: (u32, Memory),
        batch: &[Job],
    ) -> Result<(), RedisError> {
        let started = Instant::now();
        let called = self.call(wire, call, generation_and_memory, batch).await;
        self.metrics.call_seconds.record(started.elapsed());
        called
    }

    /// Calls the script. The connection has the answer.
    async fn call(
        &self,
        wire: &mut Option<Wired>,
        call: &mut Call,
        (generation, memory): (u32, Memory),
        batch: &[Job],
    ) -> Result<(), RedisError> {
        if let Some((idle, server)) = wire
            && !self.is_same_server(idle, server).await
        {
            // Closed while idle, or another Redis by now. Nothing was sent, so connecting again is safe.
            *wire = None;
        }
        let (wire, server) = match wire {
            Some(wired) => wired,
            None => wire.insert(self.redis.wire().await?),
        };
        let context = Context {
            partition: self.partition,
            generation,
            server,
            now: self.clock.now(),
            calendar: self.calendar,
            stream_bytes_max: self.options.stream_bytes_max,
            memory,
        };
        self.script.call(wire, call, &context, batch.iter().map(|job| &job.request)).await
    }

    /// Whether an idle connection is open and leads to the same Redis as before. That Redis may have become a replica,
    /// loaded another's older data and been promoted again, with every connection still open (decision 0011). A
    /// connection in use would have received READONLY.
    async fn is_same_server(&self, idle: &mut Wire, server: &ServerId) -> bool {
        // If the other end vanished silently, no answer arrives, and the connection is treated as closed.
        idle.is_open().await
            && (idle.unused_for() <= self.options.identity_trust
                || matches!(idle.ask_server().await, Ok(found) if found == *server))
    }
}

impl BatchMetrics {
    fn of(partition: Partition) -> Self {
        Self {
            operations: metrics::histogram!("quota_gate_batch_operations"),
            batch_seconds: metrics::histogram!("quota_gate_batch_seconds"),
            call_seconds: metrics::histogram!("quota_gate_redis_call_seconds"),
            queue_depth: metrics::gauge!("quota_gate_queue_depth", "partition" => partition.to_string()),
        }
    }
}

fn away() -> RedisError {
    RedisError::Away("it did not answer and is being probed".into())
}

/// Kind of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivered {
    Answers,
    Stale,
}

fn deliver(bytes: &[u8], now_ms: i64, batch: Vec<Job>) -> Delivered {
    let (as_of_ms, mut answers) = match Reply::decode(bytes) {
        Some(Reply::Answered { as_of_ms, expired_holds, answers }) => {
            if expired_holds > 0 {
                metrics::counter!("quota_gate_holds_expired_total").increment(expired_holds.into());
            }
            (as_of_ms, answers)
        }
        Some(Reply::Stale) => {
            refuse(batch, &RedisError::Stale);
            return Delivered::Stale;
        }
        Some(Reply::Skew { redis_ms }) => {
            let difference_ms = i64::try_from(redis_ms).unwrap_or(i64::MAX).saturating_sub(now_ms);
            refuse(batch, &RedisError::Skew { difference_ms });
            return Delivered::Answers;
        }
        None => {
            refuse(batch, &RedisError::Indeterminate("the script's reply is malformed".into()));
            return Delivered::Answers;
        }
    };
    for job in batch {
        let seeded = job.request.seed.is_none() || answers.seeded().is_some();
        let answer = if seeded { answers.next(as_of_ms) } else { None };
        let garbled = || RedisError::Indeterminate("the script's reply is malformed".into());
        let _ = job.reply.send(answer.ok_or_else(garbled));
    }
    Delivered::Answers
}

fn refuse(batch: Vec<Job>, error: &RedisError) {
    for job in batch {
        let _ = job.reply.send(Err(error.clone()));
    }
}
