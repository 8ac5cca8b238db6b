//! The resetter's queries: rolls due rows, and records the runs in `reset_runs`.

use chrono::{DateTime, Utc};

use crate::domain::{calendar::Calendar, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, users::roll::roll_due};

/// A run of the resetter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetRun {
    /// What triggered the run.
    pub trigger: String,
    /// Start time.
    pub started_at: DateTime<Utc>,
    /// End time; `None` while it runs, or if its gate died.
    pub finished_at: Option<DateTime<Utc>>,
    /// Rows rolled.
    pub rows: i64,
    /// Rows of batches that failed.
    pub failed: i64,
    /// Last error.
    pub error: Option<String>,
}

/// A batch of rolled rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBatch {
    /// Number of rows rolled.
    pub rolled: u64,
    /// Last user, where the next batch continues; `None` if no due rows follow.
    pub last: Option<UserId>,
}

impl Postgres {
    /// Rolls up to `limit` rows whose period is over, in user order after `after`. Skips locked rows: the transaction
    /// that holds the lock rolls them, or the next run does.
    ///
    /// # Errors
    /// If Postgres is unavailable; no row of the batch was rolled.
    pub async fn roll_due(
        &self,
        calendar: Calendar,
        now: DateTime<Utc>,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<RolledBatch, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        // A roll that a crash undoes is due again, and changes based on it commit later in the same WAL.
        sqlx::query!("set local synchronous_commit = off").execute(&mut transaction).await?;
        let due = sqlx::query_scalar!(
            "select user_uuid
             from chat_quotas
             where user_uuid > $1
               and quota_reset_at <= $2
             order by user_uuid
             limit $3
             for update skip locked",
            after.map_or("", UserId::as_str),
            now,
            i64::from(limit),
        )
        .fetch_all(&mut transaction)
        .await?;
        let rolled = roll_due(&mut transaction, &due, calendar, now).await?;
        transaction.commit().await?;
        let full = due.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let last = match due.last() {
            Some(last) if full => {
                Some(UserId::parse(last).map_err(|_| PostgresError::inconsistent("chat_quotas", "user_uuid", last))?)
            }
            _ => None,
        };
        Ok(RolledBatch { rolled: u64::try_from(rolled).unwrap_or_default(), last })
    }

    /// Returns the number of rows in a past period. They count as reset, because they roll when they are needed.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn due_rows(&self, now: DateTime<Utc>) -> Result<u64, PostgresError> {
        let count =
            sqlx::query_scalar!(r#"select count(*) as "count!" from chat_quotas where quota_reset_at <= $1"#, now)
                .fetch_one(&self.pool)
                .await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Records the start of a run.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn begin_reset_run(&self, trigger: &str, now: DateTime<Utc>) -> Result<i64, PostgresError> {
        let id = sqlx::query_scalar!(
            "insert into reset_runs (trigger, started_at) values ($1, $2) returning id",
            trigger,
            now
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(id)
    }

    /// Records the end of a run.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn finish_reset_run(
        &self,
        run: i64,
        rows: u64,
        failed: u64,
        error: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<(), PostgresError> {
        sqlx::query!(
            "update reset_runs
             set finished_at = $2,
                 rows = $3,
                 failed = $4,
                 error = $5
             where id = $1",
            run,
            now,
            i64::try_from(rows).unwrap_or(i64::MAX),
            i64::try_from(failed).unwrap_or(i64::MAX),
            error,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns the newest run.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn last_reset_run(&self) -> Result<Option<ResetRun>, PostgresError> {
        Ok(self.reset_runs(1).await?.pop())
    }

    /// Returns the last runs, newest first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn reset_runs(&self, limit: u32) -> Result<Vec<ResetRun>, PostgresError> {
        let runs = sqlx::query_as!(
            ResetRun,
            "select trigger, started_at, finished_at, rows, failed, error
             from reset_runs
             order by started_at desc, id desc
             limit $1",
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(runs)
    }
}
