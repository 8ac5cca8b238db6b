//! What Postgres says of itself and of the gate's role: for the metrics and `quota-gate doctor`.

use chrono::{DateTime, Datelike, Utc};

use crate::store::postgres::{Postgres, PostgresError};

/// The oldest version that the gate is tested with, as `server_version_num` has it.
pub const VERSION_MIN: i32 = 150_000;

/// What Postgres says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct PostgresServerInfo {
    /// For example 150018.
    pub version: i32,
    /// It is no standby.
    pub is_primary: bool,
    /// A commit is on disk when it is answered.
    pub fsync: bool,
    /// What its clock says.
    pub time: DateTime<Utc>,
    /// The role that the gate uses.
    pub role: String,
    /// It may do anything.
    pub is_superuser: bool,
    /// It may change or delete what is in the usage log.
    pub may_rewrite_log: bool,
    /// It may make tables.
    pub may_create: bool,
    /// The log has its partitions of this month and the next.
    pub has_log_partitions: bool,
    /// Rows that had to go to the log's default partition.
    pub rows_in_default_partition: bool,
}

impl Postgres {
    /// Asks.
    ///
    /// # Errors
    /// If Postgres does not answer, or has no tables of the gate.
    pub async fn server_info(&self, now: DateTime<Utc>) -> Result<PostgresServerInfo, PostgresError> {
        let month = |at: DateTime<Utc>| format!("chat_usage_logs_{:04}{:02}", at.year(), at.month());
        let next = now + chrono::Months::new(1);
        let server_info = sqlx::query_as!(
            PostgresServerInfo,
            r#"select current_setting('server_version_num')::int as "version!",
                    not pg_is_in_recovery() as "is_primary!",
                    current_setting('fsync')::bool as "fsync!",
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

    /// Users who were charged more than their quota in a period, although nobody lowered their level in it: there should be none.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn over_admitted(&self, period: i32, since: DateTime<Utc>) -> Result<u64, PostgresError> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!"
             from chat_quotas as quotas
             where quotas.monthly_used > quotas.monthly_quota
               and quotas.period = $1
               and not exists (
                   select from user_changes as changes
                   where changes.user_uuid = quotas.user_uuid
                     and changes.kind = 'level'
                     and changes.changed_at >= $2
               )"#,
            period,
            since,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Connections of the pool: all of them, and those that nobody uses.
    #[must_use]
    pub fn pool_connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }
}
