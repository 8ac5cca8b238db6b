//! What the resetter does and leaves behind: due rows roll, and `reset_runs` tells of it.

use chrono::{DateTime, Utc};

use crate::domain::{calendar::Period, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError};

/// One run of the resetter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetRun {
    /// What asked for it.
    pub trigger: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended; none while it runs, or when its gate died.
    pub finished_at: Option<DateTime<Utc>>,
    /// Rows that were rolled.
    pub rows: i64,
    /// Rows of batches that failed.
    pub failed: i64,
    /// The last failure.
    pub error: Option<String>,
}

/// Some due rows, rolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBatch {
    /// How many were rolled.
    pub rolled: u64,
    /// Where to go on; none when no due row is left behind this batch.
    pub last: Option<UserId>,
}

impl Postgres {
    /// Rolls up to `limit` rows whose period is before `period`, in user order after `after`. Rows that somebody else has
    /// locked are passed over: whoever has them rolls them, or the next run does.
    ///
    /// # Errors
    /// If Postgres is away; then no row of the batch was rolled.
    pub async fn roll_due(
        &self,
        period: Period,
        reset_at: DateTime<Utc>,
        now: DateTime<Utc>,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<RolledBatch, PostgresError> {
        let period = i32::try_from(period.id()).unwrap_or(i32::MAX);
        let mut transaction = self.pool.begin().await?;
        // A roll that a crash takes back is simply due again, and whatever is built on it commits later in the same log.
        sqlx::query!("set local synchronous_commit = off").execute(&mut *transaction).await?;
        let due = sqlx::query_scalar!(
            "select user_uuid
             from chat_quotas
             where user_uuid > $1
               and period < $2
             order by user_uuid
             limit $3
             for update skip locked",
            after.map_or("", UserId::as_str),
            period,
            i64::from(limit),
        )
        .fetch_all(&mut *transaction)
        .await?;
        let rolled = sqlx::query_scalar!(
            r#"select roll_chat_quotas($1, $2, $3, $4) as "rolled!""#,
            &due,
            period,
            reset_at,
            now,
        )
        .fetch_one(&mut *transaction)
        .await?;
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

    /// How many rows stand in a period that is over. They count as reset all the same: they roll when they are needed.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn due_rows(&self, now: DateTime<Utc>) -> Result<u64, PostgresError> {
        let count =
            sqlx::query_scalar!(r#"select count(*) as "count!" from chat_quotas where quota_reset_at <= $1"#, now)
                .fetch_one(&self.pool)
                .await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Notes that a run begins.
    ///
    /// # Errors
    /// If Postgres is away.
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

    /// Notes how a run ended.
    ///
    /// # Errors
    /// If Postgres is away.
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

    /// The newest run.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn last_reset_run(&self) -> Result<Option<ResetRun>, PostgresError> {
        Ok(self.reset_runs(1).await?.pop())
    }

    /// The newest runs, newest first.
    ///
    /// # Errors
    /// If Postgres is away.
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
