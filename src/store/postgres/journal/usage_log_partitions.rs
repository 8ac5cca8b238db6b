//! The log's monthly partitions, created ahead of time.

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};

use crate::store::postgres::{Postgres, PostgresError};

impl Postgres {
    /// Creates the log's partitions for the month of `from` (UTC) and `months_ahead` months after it. Returns how many
    /// were created.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn ensure_log_partitions(&self, from: DateTime<Utc>, months_ahead: u32) -> Result<u32, PostgresError> {
        let first = NaiveDate::from_ymd_opt(from.year(), from.month(), 1).unwrap_or_default();
        let mut made = 0;
        for ahead in 0..=months_ahead {
            let month = first + Months::new(ahead);
            let new = sqlx::query_scalar!(r#"select ensure_usage_log_partition($1) as "made!""#, month)
                .fetch_one(&self.pool)
                .await?;
            made += u32::from(new);
        }
        Ok(made)
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
