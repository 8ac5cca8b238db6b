//! Loads users from Postgres if Redis does not know them.
//!
//! Each partition has a queue. One query loads the users in it, each once, however many requests wait: when a million
//! users arrive together after a loss, Postgres gets thousands of queries, not millions. While Postgres is unavailable
//! no request waits: the breaker refuses, so requests that need Postgres take no permits from the others.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};
use tracing::Instrument;

use crate::{
    domain::{
        calendar::Calendar,
        clock::Clock,
        meter::MeterCode,
        partition::{Partition, Partitions},
        user_id::UserId,
    },
    store::{
        breaker::Breaker,
        postgres::{Loaded, NewUser, Postgres, PostgresError, QuotaRow},
        redis::{RedisError, Seed, UserLevel},
    },
    task,
};

/// Maximum users per query: enough to make the round trip cheap, few enough for an answer in milliseconds.
const USERS_PER_QUERY_MAX: usize = 512;

/// Whether this process has reported a user whose id is a UUID in an unusual spelling. One report is enough.
static UNUSUAL_REPORTED: AtomicBool = AtomicBool::new(false);

/// Time limit for one query. A server that hangs does not end the query.
const LOAD_MAX: Duration = Duration::from_secs(3);

/// Maximum requests that wait for one partition. Beyond it users arrive faster than they are loaded: the gate refuses.
const QUEUE_LENGTH_MAX: usize = 8_192;

/// Loads users. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::gate) struct Loader {
    queues: Arc<[mpsc::Sender<Job>]>,
    breaker: Breaker,
}

/// A user as stored in Postgres.
#[derive(Debug, Clone)]
pub(in crate::gate) struct LoadedUser {
    /// The partition's generation, from the same snapshot.
    pub(in crate::gate) generation: u32,
    pub(in crate::gate) seed: Seed,
}

#[derive(Debug)]
struct Job {
    user: UserId,
    meter: MeterCode,
    reply: oneshot::Sender<Result<LoadedUser, RedisError>>,
}

struct Worker {
    breaker: Breaker,
    partition: Partition,
    queue: Mutex<mpsc::Receiver<Job>>,
    postgres: Postgres,
    clock: Clock,
    calendar: Calendar,
}

impl Loader {
    pub(in crate::gate) fn start(
        postgres: &Postgres,
        partitions: Partitions,
        clock: &Clock,
        calendar: Calendar,
    ) -> Self {
        let breaker = Breaker::closed("postgres");
        let queues = partitions
            .all()
            .map(|partition| {
                let (sender, queue) = mpsc::channel(QUEUE_LENGTH_MAX);
                let worker = Worker {
                    breaker: breaker.clone(),
                    partition,
                    queue: Mutex::new(queue),
                    postgres: postgres.clone(),
                    clock: clock.clone(),
                    calendar,
                };
                let worker = Arc::new(worker);
                tokio::spawn(task::keep_running("loader", move || Arc::clone(&worker).run()));
                sender
            })
            .collect();
        Self { queues, breaker }
    }

    /// Loads the user's account of a meter; creates the row if there is none. If this fails, nothing has happened in
    /// Redis.
    pub(in crate::gate) async fn load(
        &self,
        partition: Partition,
        user: &UserId,
        meter: MeterCode,
    ) -> Result<LoadedUser, RedisError> {
        if self.breaker.is_open() {
            return Err(RedisError::NotLoaded("Postgres is unavailable and is being probed".into()));
        }
        let (reply, loaded) = oneshot::channel();
        let job = Job { user: user.clone(), meter, reply };
        self.queues[partition.index()].try_send(job).map_err(|_| RedisError::Busy(QUEUE_LENGTH_MAX))?;
        loaded.await.unwrap_or_else(|_| Err(RedisError::NotLoaded("the loader has stopped".into())))
    }
}

impl Worker {
    async fn run(self: Arc<Self>) {
        // Only this task reads the queue; after a panic, its replacement does.
        let mut queue = self.queue.lock().await;
        let mut jobs = Vec::with_capacity(USERS_PER_QUERY_MAX);
        while queue.recv_many(&mut jobs, USERS_PER_QUERY_MAX).await > 0 {
            let mut waiting: BTreeMap<MeterCode, HashMap<UserId, Vec<Job>>> = BTreeMap::new();
            for job in jobs.drain(..).filter(|job| !job.reply.is_closed()) {
                waiting.entry(job.meter).or_default().entry(job.user.clone()).or_default().push(job);
            }
            for (meter, waiting) in waiting {
                self.answer(meter, waiting).await;
            }
        }
    }

    async fn answer(&self, meter: MeterCode, mut waiting: HashMap<UserId, Vec<Job>>) {
        let users: Vec<UserId> = waiting.keys().cloned().collect();
        let failure = match timeout(
            LOAD_MAX,
            self.load(meter, &users).instrument(tracing::debug_span!("load", users = users.len())),
        )
        .await
        {
            Ok(Ok(loaded)) => {
                self.breaker.succeeded();
                for (user, loaded) in loaded {
                    reply_all(waiting.remove(&user), &Ok(loaded));
                }
                // A row is created for every other user.
                RedisError::Forgotten
            }
            Ok(Err(error)) => {
                if error.is_retryable() {
                    self.failed();
                }
                RedisError::NotLoaded(error.to_string())
            }
            Err(_) => {
                self.failed();
                RedisError::NotLoaded(format!("Postgres has not answered in {LOAD_MAX:?}"))
            }
        };
        for jobs in waiting.into_values() {
            reply_all(Some(jobs), &Err(failure.clone()));
        }
    }

    fn failed(&self) {
        let postgres = self.postgres.clone();
        self.breaker.failed(move || {
            let postgres = postgres.clone();
            async move { matches!(timeout(LOAD_MAX, postgres.ping()).await, Ok(Ok(()))) }
        });
    }

    async fn load(&self, meter: MeterCode, users: &[UserId]) -> Result<Vec<(UserId, LoadedUser)>, PostgresError> {
        let now = self.clock.now();
        let day = self.calendar.day_at(now);
        let first = NewUser { calendar: self.calendar, now };
        let today = self.calendar.day_start(day);
        let number = self.partition.number();
        // Most users who are not in Redis have a row already.
        let found = self.find(meter, users, today).await?;
        let known: HashSet<&UserId> = found.iter().flat_map(|found| &found.rows).map(|row| &row.user).collect();
        let unknown: Vec<UserId> = users.iter().filter(|user| !known.contains(user)).cloned().collect();
        metrics::counter!("quota_gate_cold_loads_total", "user" => "known").increment(known.len() as u64);
        metrics::counter!("quota_gate_cold_loads_total", "user" => "new").increment(unknown.len() as u64);
        if let Some(user) = unknown.iter().find(|user| user.is_unusual_uuid())
            && !UNUSUAL_REPORTED.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%user, "a new user's id is a UUID in an unusual spelling; each spelling is a user of its own");
        }
        let created = match unknown.as_slice() {
            [] => None,
            unknown => {
                let created = self.postgres.load_or_create(number, unknown, &first, today).await?;
                if meter.is_chat() { Some(created) } else { self.find(meter, unknown, today).await? }
            }
        };
        let seed = |row: &QuotaRow| Seed {
            level: user_level(row),
            used: row.used,
            total_used: row.total_used,
            day,
            used_today: row.used_today,
            windows: row.windows.clone(),
            grants: row.grants.clone().without_expired(now),
        };
        // Each row has the generation of its snapshot.
        let seeds = |loaded: Loaded| {
            let generation = loaded.generation;
            loaded.rows.into_iter().map(move |row| (row.user.clone(), LoadedUser { generation, seed: seed(&row) }))
        };
        Ok(found.into_iter().chain(created).flat_map(seeds).collect())
    }

    /// Returns what Postgres has about those of these users who have a row.
    async fn find(
        &self,
        meter: MeterCode,
        users: &[UserId],
        today: DateTime<Utc>,
    ) -> Result<Option<Loaded>, PostgresError> {
        let partition = self.partition.number();
        if meter.is_chat() {
            self.postgres.load(partition, users, today).await
        } else {
            self.postgres.load_meter(partition, users, meter, today).await
        }
    }
}

/// Returns the columns of a row that a level change modifies.
pub(in crate::gate) fn user_level(row: &QuotaRow) -> UserLevel {
    UserLevel {
        period: row.period,
        anchor_day: row.anchor_day,
        level: row.level,
        quota: row.quota,
        own_quota: row.own_quota,
        blocked: row.blocked,
        pending: row.pending,
        level_version: row.level_version,
    }
}

fn reply_all(jobs: Option<Vec<Job>>, outcome: &Result<LoadedUser, RedisError>) {
    for job in jobs.into_iter().flatten() {
        // A caller that has gone needs no answer.
        let _ = job.reply.send(outcome.clone());
    }
}
