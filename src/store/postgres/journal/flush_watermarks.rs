//! `flush_watermarks`: how far each partition's events are in Postgres.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    journal::{Anchor, Position, Watermark},
    partition::Partitions,
};
use crate::store::postgres::{
    Postgres, PostgresError,
    integers::{integer, smallint},
};

/// Generation of an installation that has lost nothing yet.
const FIRST_GENERATION: i32 = 1;

struct Row {
    partition: i16,
    generation: i32,
    last_id: Option<String>,
    last_event: Uuid,
    opened_at: DateTime<Utc>,
    answers_since: Option<DateTime<Utc>>,
    answers_generation: Option<i32>,
}

impl Postgres {
    /// Creates a row for each partition without one: being opened, generation 0.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn ensure_watermarks(&self, partitions: Partitions, now: DateTime<Utc>) -> Result<(), PostgresError> {
        sqlx::query!(
            "insert into flush_watermarks (partition, generation, last_id, last_event, opened_at, updated_at)
             select number, 0, null, $2, $3, $3
             from generate_series(0, $1 - 1) as numbers (number)
             on conflict do nothing",
            i32::from(partitions.count()),
            Position::GENESIS.event,
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns how far a partition's events are in Postgres.
    ///
    /// # Errors
    /// If Postgres is unavailable, or the partition does not exist.
    pub async fn watermark(&self, partition: u16) -> Result<Watermark, PostgresError> {
        let row = sqlx::query_as!(
            Row,
            "select partition, generation, last_id, last_event, opened_at, answers_since, answers_generation
             from flush_watermarks
             where partition = $1",
            smallint(partition),
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or_else(|| PostgresError::inconsistent("flush_watermarks", "partition", partition))?;
        row.read()
    }

    /// Returns how far the events of every partition are in Postgres, in partition order.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn watermarks(&self) -> Result<Vec<Watermark>, PostgresError> {
        watermarks(&self.pool).await
    }

    /// Claims a partition's opening for `opener`, or renews the claim. Returns false while the claim of another process
    /// is valid. Times are those of Postgres, so the clocks of the processes do not matter.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn claim_opening(&self, partition: u16, opener: Uuid, claim_seconds: f64) -> Result<bool, PostgresError> {
        let claimed = sqlx::query!(
            "update flush_watermarks
             set opener = $2,
                 opener_until = now() + make_interval(secs => $3)
             where partition = $1
               and (opener is null or opener = $2 or opener_until < now())",
            smallint(partition),
            opener,
            claim_seconds,
        )
        .execute(&self.pool)
        .await?;
        Ok(claimed.rows_affected() == 1)
    }

    /// Ends the claim of this opener, if it still has it.
    ///
    /// # Errors
    /// If Postgres is unavailable. The claim then ends by its time.
    pub async fn release_opening(&self, partition: u16, opener: Uuid) -> Result<(), PostgresError> {
        sqlx::query!(
            "update flush_watermarks
             set opener = null,
                 opener_until = null
             where partition = $1
               and opener = $2",
            smallint(partition),
            opener,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Marks a partition as being opened if it is still in this generation. From then on, no flush commits. Returns
    /// the entry up to which Postgres has the journal: the last flush may have committed while this statement waited.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn begin_opening(
        &self,
        partition: u16,
        generation: u32,
        now: DateTime<Utc>,
    ) -> Result<Option<Anchor>, PostgresError> {
        let row = sqlx::query!(
            "with before as (
                 select last_id, last_event
                 from flush_watermarks
                 where partition = $1
                   and generation = $2
                 for update
             )
             update flush_watermarks as watermark
             set last_id = null,
                 updated_at = $3
             from before
             where watermark.partition = $1
             returning before.last_id, before.last_event",
            smallint(partition),
            integer(generation),
            now,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let wrong = |_| PostgresError::inconsistent("flush_watermarks", "last_id", partition);
        let id = row.last_id.map(|id| id.parse()).transpose().map_err(wrong)?;
        Ok(Some(Anchor { generation, id, event: row.last_event }))
    }

    /// Ends an opening: stores the new generation and its fence, with the watermark at its genesis entry.
    /// `answers_kept`: Redis has lost no answer that Postgres could know. Returns false if the partition is no longer
    /// being opened in this generation.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn finish_opening(
        &self,
        partition: u16,
        generation: u32,
        (opened, fence, answers_kept): (u32, &str, bool),
        now: DateTime<Utc>,
    ) -> Result<bool, PostgresError> {
        let done = sqlx::query!(
            "update flush_watermarks
             set generation = $3,
                 last_id = $4,
                 last_event = $5,
                 opened_at = $6,
                 updated_at = $6,
                 answers_since = case
                     when not $7 then $6
                     when answers_generation = generation or generation = 0 then answers_since
                     else opened_at
                 end,
                 answers_generation = $3,
                 fence = $8
             where partition = $1
               and generation = $2
               and last_id is null",
            smallint(partition),
            integer(generation),
            integer(opened),
            Position::GENESIS.id.to_string(),
            Position::GENESIS.event,
            now,
            answers_kept,
            fence,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Stores the fence of an open generation.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn note_fence(&self, partition: u16, generation: u32, fence: &str) -> Result<(), PostgresError> {
        sqlx::query!(
            "update flush_watermarks
             set fence = $3
             where partition = $1
               and generation = $2",
            smallint(partition),
            integer(generation),
            fence,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns the generation of every partition and its fence, in partition order. The fence is none if no gate of
    /// this version or a newer one has opened the generation.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn fences(&self) -> Result<Vec<(u32, Option<String>)>, PostgresError> {
        // A gate of an older version opens a generation and leaves the fence of an earlier one.
        let rows = sqlx::query!(
            "select partition, generation,
                    case when split_part(fence, ' ', 1) = generation::text then fence end as fence
             from flush_watermarks
             order by partition"
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |generation, partition| {
            u32::try_from(generation)
                .map_err(|_| PostgresError::inconsistent("flush_watermarks", "generation", partition))
        };
        rows.into_iter().map(|row| Ok((read(row.generation, row.partition)?, row.fence))).collect()
    }
}

pub(in crate::store::postgres) async fn watermarks<'e>(
    connection: impl sqlx::PgExecutor<'e>,
) -> Result<Vec<Watermark>, PostgresError> {
    let rows = sqlx::query_as!(
        Row,
        "select partition, generation, last_id, last_event, opened_at, answers_since, answers_generation
         from flush_watermarks
         order by partition"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

impl Row {
    fn read(self) -> Result<Watermark, PostgresError> {
        let wrong = |column| PostgresError::inconsistent("flush_watermarks", column, self.partition);
        let answers_since =
            answers_since(self.generation, (self.answers_since, self.answers_generation), self.opened_at);
        let id = self.last_id.map(|id| id.parse()).transpose().map_err(|_| wrong("last_id"))?;
        Ok(Watermark {
            generation: u32::try_from(self.generation).map_err(|_| wrong("generation"))?,
            position: id.map(|id| Position { id, event: self.last_event }),
            opened_at: self.opened_at,
            answers_since,
        })
    }
}

/// Returns since when Redis has every answer of a partition.
pub(in crate::store::postgres) fn answers_since(
    generation: i32,
    (answers_since, answers_generation): (Option<DateTime<Utc>>, Option<i32>),
    opened_at: DateTime<Utc>,
) -> DateTime<Utc> {
    // The first generation has lost nothing. A later one that an older gate has opened may have.
    if answers_generation == Some(generation) || generation <= FIRST_GENERATION {
        answers_since.unwrap_or(DateTime::UNIX_EPOCH)
    } else {
        opened_at
    }
}
