//! Retention: drops old partitions of the usage log. Totals, closed months and usage by day stay.

use std::time::Duration;

use chrono::{Datelike, Months, NaiveDate};
use tokio::time::sleep;

use crate::store::postgres::{Postgres, PostgresError};

/// Tries to drop a partition, each of which waits for 200 ms.
const TRIES: u32 = 30;
/// Pause between two tries, in which statements that waited behind this one run.
const PAUSE: Duration = Duration::from_millis(800);

/// The log's partition for one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPartition {
    /// Table name.
    pub name: String,
    /// First day of the month.
    pub month: NaiveDate,
    /// Number of rows as estimated by Postgres.
    pub rows: i64,
    /// Size in bytes, including indexes.
    pub bytes: i64,
}

impl Postgres {
    /// Returns the log's partitions that end before a month begins, oldest first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn log_partitions_before(&self, month: NaiveDate) -> Result<Vec<LogPartition>, PostgresError> {
        let rows = sqlx::query!(
            r#"select pg_class.relname::text as "name!",
                    greatest(pg_class.reltuples, 0)::bigint as "rows!",
                    pg_total_relation_size(pg_class.oid) as "bytes!"
             from pg_inherits
             join pg_class on pg_class.oid = pg_inherits.inhrelid
             where pg_inherits.inhparent = 'chat_usage_logs'::regclass
               and pg_class.relname ~ '^chat_usage_logs_[0-9]{6}$'
             order by 1"#
        )
        .fetch_all(&self.pool)
        .await?;
        let partitions = rows.into_iter().filter_map(|row| {
            let digits: u32 = row.name.rsplit('_').next()?.parse().ok()?;
            let begin = NaiveDate::from_ymd_opt(i32::try_from(digits / 100).ok()?, digits % 100, 1)?;
            (begin < month).then_some(LogPartition { name: row.name, month: begin, rows: row.rows, bytes: row.bytes })
        });
        Ok(partitions.collect())
    }

    /// Detaches a partition from the log, drops it and records the new start of the log, in one transaction. Waits for
    /// locks in short intervals, because other statements queue behind it.
    ///
    /// # Errors
    /// If Postgres is unavailable, the role does not own the tables, or another session locks the log for half a
    /// minute. A retry is safe.
    pub async fn drop_log_partition(&self, partition: &LogPartition) -> Result<(), PostgresError> {
        for _ in 1..TRIES {
            match self.try_drop_log_partition(partition).await {
                Err(error) if error.is_lock_timeout() => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
        self.try_drop_log_partition(partition).await
    }

    async fn try_drop_log_partition(&self, partition: &LogPartition) -> Result<(), PostgresError> {
        let next = partition.month.with_day(1).unwrap_or(partition.month) + Months::new(1);
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("set local lock_timeout = '200ms'").execute(&mut transaction).await?;
        // This program created the name: letters, digits and underscores.
        for statement in ["alter table chat_usage_logs detach partition", "drop table"] {
            let statement = format!("{statement} {}", partition.name);
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut transaction).await?;
        }
        sqlx::query!("update gate_settings set log_begins_on = greatest(coalesce(log_begins_on, $1), $1)", next)
            .execute(&mut transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}
