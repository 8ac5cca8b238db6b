//! Health: how far flushing and resets are behind, as `GET /api/chat/quota/reset` reports it.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    domain::{
        clock::instant,
        journal::{Entry, Watermark},
        partition::Partition,
    },
    gate::{Gate, newer_journal_reason},
    store::{
        postgres::{PostgresError, ResetRun},
        redis::RedisError,
    },
};

/// Entries per partition that are read to count waiting events. More would not make the number more useful.
const LOOK_AHEAD_ENTRIES: usize = 1_000;

/// What counts as late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthLimits {
    /// A reset is overdue when the last one began longer ago than this.
    pub reset_overdue_after: TimeDelta,
    /// Flushing is slow when the oldest event has waited longer than this.
    pub flush_lag_max: TimeDelta,
}

/// Checks flushing and resets.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    gate: Gate,
    limits: HealthLimits,
    /// Before the first reset of this gate is due, none is overdue.
    started_at: DateTime<Utc>,
}

/// State of flushing and resets.
#[derive(Debug, Clone)]
pub struct JobHealth {
    /// The last run of the resetter.
    pub last_run: Option<ResetRun>,
    /// Rows of a period that is over.
    pub due_rows: u64,
    /// The partitions, and how far Postgres is behind each.
    pub partitions: Vec<PartitionHealth>,
    /// Events that Postgres refused.
    pub dead_letters: u64,
    /// Settlements that Postgres accepted while Redis was unavailable, and that are not applied yet.
    pub inbox: u64,
    /// Problems, for people; empty if there are none.
    pub problems: Vec<String>,
}

/// How far Postgres is behind Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlushLag {
    /// Waiting events, as far as they were counted.
    pub events: u64,
    /// Age of the oldest waiting event.
    pub seconds: u64,
}

/// State of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHealth {
    /// Its number.
    pub number: u16,
    /// Its generation.
    pub generation: u32,
    /// When the generation was opened.
    pub opened_at: DateTime<Utc>,
    /// Whether it is being opened.
    pub is_opening: bool,
    /// Format of waiting usage that only a gate of a newer version can read, if there is any.
    pub newer_format: Option<u8>,
    /// Its usage stream; none if Redis is unavailable.
    pub stream: Option<StreamHealth>,
}

/// State of a usage stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHealth {
    /// Its length in entries.
    pub entries: u64,
    /// How far Postgres is behind it.
    pub lag: FlushLag,
    /// Format of its first entry that only a gate of a newer version can read.
    pub newer_format: Option<u8>,
}

impl FlushLag {
    /// Sums the lag of several partitions: all waiting events, and the age of the oldest. None if a partition's lag is
    /// unknown.
    #[must_use]
    pub fn of(partitions: &[PartitionHealth]) -> Option<Self> {
        partitions.iter().try_fold(Self::default(), |all, partition| {
            let lag = partition.stream?.lag;
            Some(Self { events: all.events + lag.events, seconds: all.seconds.max(lag.seconds) })
        })
    }
}

impl HealthCheck {
    /// The health check of this gate, which has just started.
    #[must_use]
    pub fn new(gate: &Gate, limits: HealthLimits) -> Self {
        Self { gate: gate.clone(), limits, started_at: gate.now() }
    }

    /// When this gate started.
    pub(crate) const fn started_at(&self) -> DateTime<Utc> {
        self.started_at
    }

    /// Checks flushing and resets. An unavailable Redis is one of the problems that it reports.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn check(&self) -> Result<JobHealth, PostgresError> {
        let now = self.gate.now();
        let last_run = self.gate.postgres().last_reset_run().await?;
        let due_rows = self.gate.postgres().due_rows(now).await?;
        let dead_letters = self.gate.postgres().dead_letter_count().await?;
        let (inbox, accepted) = self.gate.postgres().inbox_waiting().await?;
        let partitions = self.partitions(&self.gate.postgres().watermarks().await?, now).await;

        let mut problems = Vec::new();
        for partition in partitions.iter().filter(|partition| partition.is_opening) {
            problems.push(format!("partition {:02} is being opened: its usage waits until it is", partition.number));
        }
        if let Some(format) = partitions.iter().filter_map(|partition| partition.newer_format).max() {
            problems.push(newer_journal_reason(format));
        }
        match FlushLag::of(&partitions) {
            None => problems.push("Redis does not answer".to_owned()),
            Some(lag) if lag.seconds > seconds(self.limits.flush_lag_max) => {
                problems.push(format!("usage waits for Postgres for {} seconds", lag.seconds));
            }
            Some(_) => {}
        }
        if self.gate.refusal().is_some() {
            problems.push("other gates serve from another Redis than this gate, which does not serve".to_owned());
        } else {
            let others = self.gate.other_gates().await?;
            let refused = others.iter().filter(|other| other.is_refused).count();
            if refused > 0 {
                problems.push(format!("{refused} other gates have another Redis, and do not serve"));
            }
        }
        let last_reset = last_run.as_ref().map_or(self.started_at, |run| run.started_at);
        if now - last_reset > self.limits.reset_overdue_after {
            problems.push(format!("the last reset run was at {last_reset}: is the cron job or the schedule on?"));
        }
        if last_run.as_ref().is_some_and(|run| run.failed > 0 || run.error.is_some()) {
            problems.push("the last reset run failed: its error is in the log and in the table reset_runs".to_owned());
        }
        if accepted.is_some_and(|oldest| now - oldest > self.limits.flush_lag_max) {
            problems
                .push(format!("{inbox} settlements were accepted while Redis was away and still wait: is it back?"));
        }
        if dead_letters > 0 {
            problems.push(format!("{dead_letters} usage events were refused: see the table dead_letters"));
        }
        Ok(JobHealth { last_run, due_rows, partitions, dead_letters, inbox, problems })
    }

    /// Returns the state of each partition, given its watermark. After one failed request Redis is not asked again.
    pub(crate) async fn partitions(&self, watermarks: &[Watermark], now: DateTime<Utc>) -> Vec<PartitionHealth> {
        let mut partitions = Vec::with_capacity(watermarks.len());
        let mut redis_answers = true;
        for (partition, watermark) in self.gate.partitions().all().zip(watermarks) {
            let stream = if redis_answers { self.stream(partition, watermark, now).await.ok() } else { None };
            redis_answers = stream.is_some();
            partitions.push(PartitionHealth {
                number: partition.number(),
                generation: watermark.generation,
                opened_at: watermark.opened_at,
                is_opening: watermark.position.is_none(),
                newer_format: match watermark.position {
                    Some(_) => stream.and_then(|stream| stream.newer_format),
                    None => self.gate.newer_journal(partition),
                },
                stream,
            });
        }
        partitions
    }

    async fn stream(
        &self,
        partition: Partition,
        watermark: &Watermark,
        now: DateTime<Utc>,
    ) -> Result<StreamHealth, RedisError> {
        let generation = watermark.generation;
        let entries = self.gate.redis().stream_length(partition, generation).await?;
        // A partition that is being opened has no watermark.
        let Some(position) = watermark.position else {
            return Ok(StreamHealth { entries, lag: FlushLag::default(), newer_format: None });
        };
        let read = self.gate.redis().read_stream(partition, generation, position.id, LOOK_AHEAD_ENTRIES).await?;
        let newer_format = read.iter().filter(|entry| entry.id > position.id).find_map(Entry::newer_format);
        let mut waiting = read.iter().filter(|entry| entry.id > position.id).peekable();
        let since = waiting.peek().map(|first| instant(i64::try_from(first.id.ms).unwrap_or(i64::MAX)));
        let seconds = since.map_or(0, |since| seconds(now - since));
        let events = waiting.map(|entry| entry.events().len() as u64).sum();
        Ok(StreamHealth { entries, lag: FlushLag { events, seconds }, newer_format })
    }
}

fn seconds(duration: TimeDelta) -> u64 {
    u64::try_from(duration.num_seconds()).unwrap_or_default()
}
