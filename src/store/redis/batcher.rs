//! The batcher: turns concurrent callers into few calls.
//!
//! Each partition has a queue and a few workers. A worker takes what is waiting, makes one script call of it and
//! answers each caller. It never waits for company: a lone caller is served at once, and batches grow only with load.
//!
//! A caller that goes away before its request was sent costs nothing; once sent, the call runs to its end. While Redis is away
//! nobody waits: the breaker refuses.

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
    script::{Call, Context, Script},
    wire::Wire,
};
use crate::{
    domain::{
        calendar::Calendar,
        clock::Clock,
        partition::{Partition, Partitions},
    },
    store::{SharedLevels, breaker::Breaker},
    task,
};

/// How the batcher behaves.
#[derive(Debug, Clone)]
pub struct BatcherOptions {
    /// Most requests of one call.
    pub operations_max: usize,
    /// Calls of one partition under way at once.
    pub calls_in_flight_max: usize,
    /// Most requests that wait for one partition; the next one is refused.
    pub queue_length_max: usize,
    /// Longest wait in the queue; after it the request is refused unsent.
    pub queue_timeout: Duration,
    /// Longest usage stream. Past it nothing new is begun until Postgres has caught up.
    pub stream_entries_max: u32,
    /// How long a connection that nobody uses is believed to lead to the same Redis; then it is asked again which one it is.
    pub identity_trust: Duration,
}

impl Default for BatcherOptions {
    fn default() -> Self {
        Self {
            operations_max: 64,
            calls_in_flight_max: 1,
            queue_length_max: 4_096,
            queue_timeout: Duration::from_secs(1),
            stream_entries_max: 1_000_000,
            // Far less than it takes to demote a primary, give it another's data and promote it again; long enough that no call asks
            // under load.
            identity_trust: Duration::from_millis(500),
        }
    }
}

/// Sends requests to Redis. A cheap clone; its workers end when the last clone is dropped.
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
    /// Of whoever asks.
    span: Span,
    reply: oneshot::Sender<Result<Option<Answer>, RedisError>>,
}

/// A connection, and which Redis it leads to.
type Wired = (Wire, ServerId);

struct Worker {
    partition: Partition,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    redis: Redis,
    script: Script,
    breaker: Breaker,
    generations: Generations,
    levels: SharedLevels,
    clock: Clock,
    calendar: Calendar,
    options: BatcherOptions,
    metrics: BatchMetrics,
}

/// Handles: to look a metric up at each call would cost more than the rest of it.
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
        (levels, generations): (&SharedLevels, &Generations),
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
                        levels: levels.clone(),
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

    /// Carries out one request; none when Redis does not have the user's record.
    ///
    /// # Errors
    /// See [`RedisError`]: only [`RedisError::Indeterminate`] leaves open whether it happened.
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
            #[expect(clippy::cast_precision_loss, reason = "a metric needs no more")]
            self.metrics.queue_depth.set(queue.len() as f64);
            drop(queue);
            let generation = self.generations.get(self.partition);
            let batch: Vec<Job> = jobs.drain(..).filter_map(|job| self.still_wanted(job, generation)).collect();
            if !batch.is_empty() {
                let oldest = batch.first().map(|job| job.enqueued);
                #[expect(clippy::cast_precision_loss, reason = "a metric needs no more")]
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

    /// Answers requests that must not be sent: nobody waits, or they were true in another generation.
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
        // The caller may have gone away meanwhile: then nobody needs the answer.
        let _ = job.reply.send(Err(refusal));
        None
    }

    async fn serve(&self, wire: &mut Option<Wired>, call: &mut Call, generation: u32, batch: Vec<Job>) {
        let started = Instant::now();
        let called = self.call(wire, call, generation, &batch).await;
        self.metrics.call_seconds.record(started.elapsed());
        let error = match called {
            Ok(bytes) => {
                self.breaker.succeeded();
                let outcome = deliver(bytes, self.clock.now().timestamp_millis(), batch);
                if outcome == Delivered::Stale {
                    // Perhaps the connection leads to another Redis than it did: asked again with the next call.
                    *wire = None;
                }
                return;
            }
            Err(error) => error,
        };
        // Whatever is still to come on this connection, nobody waits for it.
        *wire = None;
        // A refusal proves that Redis is there.
        if matches!(error, RedisError::Away(_) | RedisError::Indeterminate(_)) {
            let redis = self.redis.clone();
            self.breaker.failed(move || {
                let redis = redis.clone();
                async move { redis.serves().await }
            });
        }
        refuse(batch, &error);
    }

    async fn call<'w>(
        &self,
        wire: &'w mut Option<Wired>,
        call: &mut Call,
        generation: u32,
        batch: &[Job],
    ) -> Result<&'w [u8], RedisError> {
        if let Some((idle, server)) = wire
            && !self.is_same_server(idle, server).await
        {
            // Closed while nobody looked, or another Redis by now: a new connection, and nothing is in doubt.
            *wire = None;
        }
        let (wire, server) = match wire {
            Some(wired) => wired,
            None => wire.insert(self.redis.wire().await?),
        };
        let levels = self.levels.get();
        let context = Context {
            partition: self.partition,
            generation,
            server,
            now: self.clock.now(),
            calendar: self.calendar,
            levels: &levels,
            stream_entries_max: self.options.stream_entries_max,
        };
        self.script.call(wire, call, &context, batch.iter().map(|job| &job.request)).await
    }

    /// Whether an idle connection is open, and leads to the Redis that it led to. That one may have been a replica meanwhile, have
    /// taken over another's older data and be the primary again, with every connection still open (decision 0011). On a connection
    /// that is in use READONLY would have told.
    async fn is_same_server(&self, idle: &mut Wire, server: &ServerId) -> bool {
        // One whose other end has vanished without a word gives no answer, and is no more use than a closed one.
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
    RedisError::Away("it has not answered, and is being probed".into())
}

/// What a reply was.
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
            refuse(batch, &RedisError::Indeterminate("the script's reply is garbled".into()));
            return Delivered::Answers;
        }
    };
    for job in batch {
        let seeded = job.request.seed.is_none() || answers.seeded().is_some();
        let answer = if seeded { answers.next(as_of_ms) } else { None };
        let garbled = || RedisError::Indeterminate("the script's reply is garbled".into());
        let _ = job.reply.send(answer.ok_or_else(garbled));
    }
    Delivered::Answers
}

fn refuse(batch: Vec<Job>, error: &RedisError) {
    for job in batch {
        let _ = job.reply.send(Err(error.clone()));
    }
}
