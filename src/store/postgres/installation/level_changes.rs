//! `level_changes`: every change of the levels. The newest is in force for all gates.

use chrono::{DateTime, Utc};

use crate::store::postgres::{Postgres, PostgresError, connections::Transaction};

impl Postgres {
    /// Returns the version of the levels in force; 0 if this installation has none yet.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn level_version(&self) -> Result<u32, PostgresError> {
        newest(&self.pool).await
    }

    /// Returns whether a change of the levels has not reached all users yet.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn is_level_change_unfinished(&self) -> Result<bool, PostgresError> {
        let unfinished =
            sqlx::query_scalar!(r#"select exists (select from level_changes where moved_at is null) as "unfinished!""#)
                .fetch_one(&self.pool)
                .await?;
        Ok(unfinished)
    }

    /// Notes that all users have the quotas of this version.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn note_moved(&self, version: u32, now: DateTime<Utc>) -> Result<(), PostgresError> {
        sqlx::query!(
            "update level_changes
             set moved_at = $2
             where version <= $1
               and moved_at is null",
            i64::from(version),
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns the time of Postgres, for [`has_transaction_before`](Self::has_transaction_before).
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn server_time(&self) -> Result<DateTime<Utc>, PostgresError> {
        let time = sqlx::query_scalar!(r#"select clock_timestamp() as "time!""#).fetch_one(&self.pool).await?;
        Ok(time)
    }

    /// Returns whether a transaction of the gate's role that began before this time is still open. It may commit what
    /// it wrote by older levels. Both times are Postgres' own.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn has_transaction_before(&self, time: DateTime<Utc>) -> Result<bool, PostgresError> {
        let running = sqlx::query_scalar!(
            r#"select exists (
                 select
                 from pg_stat_activity
                 where datname = current_database()
                   and usename = current_user
                   and pid <> pg_backend_pid()
                   and xact_start < $1
             ) as "running!""#,
            time,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(running)
    }
}

/// The version in force; 0 for none.
pub(in crate::store::postgres) async fn newest<'e>(
    connection: impl sqlx::PgExecutor<'e>,
) -> Result<u32, PostgresError> {
    let version = sqlx::query_scalar!("select max(version) from level_changes").fetch_one(connection).await?;
    Ok(version.and_then(|version| u32::try_from(version).ok()).unwrap_or_default())
}

/// Notes a change. It is `finished` if it moves no user.
pub(in crate::store::postgres) async fn note(
    connection: &mut Transaction<'_>,
    version: u32,
    changes: &str,
    finished: bool,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into level_changes (version, changed_at, changes, moved_at)
         values ($1, $3::timestamptz, $2, case when $4 then $3::timestamptz end)",
        i64::from(version),
        changes,
        now,
        finished,
    )
    .execute(connection)
    .await?;
    Ok(())
}
