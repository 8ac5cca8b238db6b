//! How the jobs are doing: what `GET /api/chat/quota/reset` reports.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    domain::{
        clock::{Clock, instant},
        journal::Watermark,
        partition::{Partition, Partitions},
    },
    store::{
        postgres::{Postgres, ResetRun},
        redis::Redis,
    },
};

use super::flusher::FlushError;

/// Entries that are looked at per partition to count what waits: enough for a number that people can read.
const LOOK_AHEAD_ENTRIES: usize = 1_000;

/// Tells how the jobs are doing.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// Where the events wait.
    pub redis: Redis,
    /// Where they go.
    pub postgres: Postgres,
    /// All of them are looked at.
    pub partitions: Partitions,
    /// The present.
    pub clock: Clock,
    /// A reset is missed when the last one began longer ago than this.
    pub reset_overdue_after: TimeDelta,
    /// Flushing is slow when the oldest event waits longer than this.
    pub flush_lag_max: TimeDelta,
    /// When this gate started: before its first reset is due, none is missed.
    pub started_at: DateTime<Utc>,
}

/// How the jobs are doing.
#[derive(Debug, Clone)]
pub struct JobHealth {
    /// The last run of the resetter.
    pub last_run: Option<ResetRun>,
    /// Rows that stand in a period that is over.
    pub due_rows: u64,
    /// Events that wait for Postgres.
    pub lag: FlushLag,
    /// Refused events.
    pub dead_letters: u64,
    /// Settlements that Postgres accepted while Redis was away, and that wait to be made.
    pub inbox: u64,
    /// What is wrong, in words; empty when all is well.
    pub problems: Vec<String>,
}

/// How far Postgres is behind Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlushLag {
    /// Events that wait; where there are very many, as many as were counted.
    pub events: u64,
    /// How long the oldest one has waited.
    pub seconds: u64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHealth {
    /// Which.
    pub number: u16,
    /// Its life in Redis.
    pub generation: u32,
    /// When that began.
    pub opened_at: DateTime<Utc>,
    /// It is being opened now.
    pub is_opening: bool,
    /// Entries of its stream, and how far Postgres is behind; none where Redis is away.
    pub stream: Option<(u64, FlushLag)>,
}

impl HealthCheck {
    /// Looks.
    ///
    /// # Errors
    /// If Redis or Postgres is away, which is not healthy either.
    pub async fn look(&self) -> Result<JobHealth, FlushError> {
        let now = self.clock.now();
        let last_run = self.postgres.last_reset_run().await?;
        let due_rows = self.postgres.due_rows(now).await?;
        let dead_letters = self.postgres.dead_letter_count().await?;
        let (inbox, accepted) = self.postgres.inbox_waiting().await?;
        let (lag, oldest) = self.flush_lag(now).await?;

        let mut problems = Vec::new();
        let last_reset = last_run.as_ref().map_or(self.started_at, |run| run.started_at);
        if now - last_reset > self.reset_overdue_after {
            problems.push(format!("the last reset run was at {last_reset}: is the cron job or the schedule on?"));
        }
        if last_run.as_ref().is_some_and(|run| run.failed > 0 || run.error.is_some()) {
            problems.push("the last reset run failed: its error is in the log and in the table reset_runs".to_owned());
        }
        if oldest > self.flush_lag_max {
            problems.push(format!("usage waits for Postgres for {} seconds", lag.seconds));
        }
        if accepted.is_some_and(|oldest| now - oldest > self.flush_lag_max) {
            problems
                .push(format!("{inbox} settlements were accepted while Redis was away and still wait: is it back?"));
        }
        if dead_letters > 0 {
            problems.push(format!("{dead_letters} usage events were refused: see the table dead_letters"));
        }
        Ok(JobHealth { last_run, due_rows, lag, dead_letters, inbox, problems })
    }

    /// How far Postgres is behind Redis.
    async fn flush_lag(&self, now: DateTime<Utc>) -> Result<(FlushLag, TimeDelta), FlushError> {
        self.flush_lag_since(&self.postgres.watermarks().await?, now).await
    }

    /// The same, by what is known of the watermarks.
    pub(super) async fn flush_lag_since(
        &self,
        watermarks: &[Watermark],
        now: DateTime<Utc>,
    ) -> Result<(FlushLag, TimeDelta), FlushError> {
        let mut events = 0;
        let mut oldest = TimeDelta::zero();
        for (partition, watermark) in self.partitions.all().zip(watermarks) {
            let (waiting, since) = self.waiting(partition, watermark).await?;
            oldest = oldest.max(since.map_or_else(TimeDelta::zero, |since| now - since));
            events += waiting;
        }
        Ok((FlushLag { events, seconds: seconds(oldest) }, oldest))
    }

    /// Each partition: its generation, its stream, and how far Postgres is behind.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn partitions(&self) -> Result<Vec<PartitionHealth>, FlushError> {
        let now = self.clock.now();
        let mut partitions = Vec::new();
        for (partition, watermark) in self.partitions.all().zip(self.postgres.watermarks().await?) {
            let stream = async {
                let length = self.redis.stream_length(partition, watermark.generation).await?;
                let (events, since) = self.waiting(partition, &watermark).await?;
                let lag = FlushLag { events, seconds: since.map_or(0, |since| seconds(now - since)) };
                Ok::<_, FlushError>((length, lag))
            };
            partitions.push(PartitionHealth {
                number: partition.number(),
                generation: watermark.generation,
                opened_at: watermark.opened_at,
                is_opening: watermark.position.is_none(),
                stream: stream.await.inspect_err(|error| tracing::debug!(%error, "a stream cannot be looked at")).ok(),
            });
        }
        Ok(partitions)
    }

    /// Events of a partition that wait for Postgres, and since when the first of them does.
    async fn waiting(
        &self,
        partition: Partition,
        watermark: &Watermark,
    ) -> Result<(u64, Option<DateTime<Utc>>), FlushError> {
        let Some(position) = watermark.position else { return Ok((0, None)) };
        let entries = self.redis.read_stream(partition, watermark.generation, position.id, LOOK_AHEAD_ENTRIES).await?;
        let mut waiting = entries.iter().filter(|entry| entry.id > position.id).peekable();
        let since = waiting.peek().map(|first| instant(i64::try_from(first.id.ms).unwrap_or(i64::MAX)));
        Ok((waiting.map(|entry| entry.events().len() as u64).sum(), since))
    }
}

fn seconds(of: TimeDelta) -> u64 {
    u64::try_from(of.num_seconds()).unwrap_or_default()
}
