//! The log's monthly partitions, created ahead of time.

use std::time::Duration;

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use tokio::time::sleep;

use crate::store::postgres::{Postgres, PostgresError};

/// Tries to create a partition, if readers of the log keep the lock. Each waits for 200 ms.
const TRIES: u32 = 5;
/// Pause between two tries, in which statements that waited behind this one run.
const PAUSE: Duration = Duration::from_millis(300);

/// Result of creating the partitions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPartitions {
    /// How many were created.
    pub made: u32,
    /// First days of the months that have none yet, because another session (a backup) reads the log. Rows of such a
    /// month go to the default partition, and move when the partition is created.
    pub blocked: Vec<NaiveDate>,
}

impl Postgres {
    /// Creates the log's partitions for the month of `from` (UTC) and `months_ahead` months after it. Does not keep
    /// other statements waiting: what a reader of the log blocks is left to the next call.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn ensure_log_partitions(
        &self,
        from: DateTime<Utc>,
        months_ahead: u32,
    ) -> Result<LogPartitions, PostgresError> {
        let first = NaiveDate::from_ymd_opt(from.year(), from.month(), 1).unwrap_or_default();
        let mut partitions = LogPartitions::default();
        for ahead in 0..=months_ahead {
            let month = first + Months::new(ahead);
            // A reader that blocks one month blocks the next one too.
            let tries = if partitions.blocked.is_empty() { TRIES } else { 1 };
            match self.ensure_log_partition(month, tries).await {
                Ok(made) => partitions.made += u32::from(made),
                Err(error) if error.is_lock_timeout() => partitions.blocked.push(month),
                Err(error) => return Err(error),
            }
        }
        Ok(partitions)
    }

    async fn ensure_log_partition(&self, month: NaiveDate, tries: u32) -> Result<bool, PostgresError> {
        let mut attempt = 1;
        loop {
            let made = sqlx::query_scalar!(r#"select ensure_usage_log_partition($1) as "made!""#, month)
                .fetch_one(&self.pool)
                .await
                .map_err(PostgresError::from);
            match made {
                Err(error) if error.is_lock_timeout() && attempt < tries => {
                    attempt += 1;
                    sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Returns the number of rows in the default partition, because their month has none.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn rows_in_default_partition(&self) -> Result<u64, PostgresError> {
        let rows = sqlx::query_scalar!(r#"select count(*) as "rows!" from chat_usage_logs_default"#)
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(rows).unwrap_or_default())
    }
}
