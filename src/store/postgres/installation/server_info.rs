//! Server info of Postgres and rights of the gate's role, for the metrics and `quota-gate doctor`.

use chrono::{DateTime, Datelike, Utc};

use crate::store::postgres::{Postgres, PostgresError};

/// Oldest version that the gate is tested with, as `server_version_num`.
pub const VERSION_MIN: i32 = 150_000;

/// Server info and rights of the gate's role.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
pub struct PostgresServerInfo {
    /// `server_version_num`, such as 150018.
    pub version: i32,
    /// Whether the server is a primary, not a standby.
    pub is_primary: bool,
    /// Whether a commit is on disk when it is confirmed.
    pub fsync: bool,
    /// Value of `synchronous_commit` in the gate's transactions.
    pub synchronous_commit: String,
    /// Time of the server's clock.
    pub time: DateTime<Utc>,
    /// Role that the gate uses.
    pub role: String,
    /// Whether the role is a superuser.
    pub is_superuser: bool,
    /// Whether the role may change or delete rows of the usage log.
    pub may_rewrite_log: bool,
    /// Whether the role may create tables.
    pub may_create: bool,
    /// Whether the log has partitions for this month and the next.
    pub has_log_partitions: bool,
    /// Whether the log's default partition has rows.
    pub rows_in_default_partition: bool,
}

impl Postgres {
    /// Returns the server info.
    ///
    /// # Errors
    /// If Postgres does not answer or lacks the gate's tables.
    pub async fn server_info(&self, now: DateTime<Utc>) -> Result<PostgresServerInfo, PostgresError> {
        let month = |at: DateTime<Utc>| format!("chat_usage_logs_{:04}{:02}", at.year(), at.month());
        let next = now + chrono::Months::new(1);
        let server_info = sqlx::query_as!(
            PostgresServerInfo,
            r#"select current_setting('server_version_num')::int as "version!",
                    not pg_is_in_recovery() as "is_primary!",
                    current_setting('fsync')::bool as "fsync!",
                    current_setting('synchronous_commit') as "synchronous_commit!",
                    clock_timestamp() as "time!",
                    current_user::text as "role!",
                    (select rolsuper from pg_roles where rolname = current_user) as "is_superuser!",
                    has_table_privilege('chat_usage_logs', 'update, delete, truncate') as "may_rewrite_log!",
                    has_schema_privilege('public', 'create') as "may_create!",
                    (
                        select count(*) = 2
                        from pg_inherits
                        join pg_class on pg_class.oid = pg_inherits.inhrelid
                        where pg_inherits.inhparent = 'chat_usage_logs'::regclass
                          and pg_class.relname in ($1, $2)
                    ) as "has_log_partitions!",
                    exists (select from chat_usage_logs_default) as "rows_in_default_partition!""#,
            month(now),
            month(next),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(server_info)
    }

    /// Counts users charged more than their quota in the current period without a change of level in it. Should be 0.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn over_admitted(&self, now: DateTime<Utc>) -> Result<u64, PostgresError> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!"
             from chat_quotas as quotas
             where quotas.monthly_used > quotas.monthly_quota
               and quotas.quota_reset_at > $1
               and not exists (
                   select from user_changes as changes
                   where changes.user_uuid = quotas.user_uuid
                     and changes.kind = 'level'
                     -- The period begins up to a day earlier in UTC than in the east.
                     and changes.changed_at >= period_begins(quotas.period) - interval '1 day'
               )"#,
            now,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Returns the numbers of all and of idle connections in the pool.
    #[must_use]
    pub fn pool_connections(&self) -> (u32, usize) {
        self.pool.counts()
    }
}
