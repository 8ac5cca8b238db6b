//! Changed quotas that hold at once, and which memberships Redis has not heard of yet: `chat_quotas.synced_version`.

use std::time::Duration;

use chrono::{DateTime, Utc};

use tokio::time::sleep;

use crate::domain::{ap::Ap, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError};

/// Rows per statement: done long before its time limit.
const BATCH_ROWS: i64 = 5_000;
/// Between two passes: whoever has locked a row is done soon.
const PASS_PAUSE: Duration = Duration::from_millis(100);

impl Postgres {
    /// Notes that Redis has heard of a user's level version.
    ///
    /// # Errors
    /// If Postgres is away; then Redis is told again, which is harmless.
    pub async fn note_told(&self, user: &UserId, level_version: u32) -> Result<(), PostgresError> {
        sqlx::query!(
            "update chat_quotas
             set synced_version = $2
             where user_uuid = $1
               and synced_version < $2",
            user.as_str(),
            i32::try_from(level_version).unwrap_or(i32::MAX),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Users after `after`, in their order, whose level changed without Redis having heard of it.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn unsynced_users(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<UserId>, PostgresError> {
        let users = sqlx::query_scalar!(
            "select user_uuid
             from chat_quotas
             where synced_version < level_version
               and user_uuid > $1
             order by user_uuid
             limit $2",
            after.map_or("", UserId::as_str),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users.iter().filter_map(|user| UserId::parse(user).ok()).collect())
    }

    /// Gives every user the quota that their level has now, instead of from the next period. Returns how many changed.
    ///
    /// # Errors
    /// If Postgres is away. What was changed stays changed; doing it again does the rest.
    pub async fn apply_level(&self, level: &str, quota: Ap, now: DateTime<Utc>) -> Result<u64, PostgresError> {
        let quota = i32::try_from(quota.get()).unwrap_or(i32::MAX);
        let (mut changed, mut after) = (0, String::new());
        loop {
            let (batch, last) = self.apply_batch((level, quota), now, &after).await?;
            changed += batch;
            if let Some(last) = last {
                after = last;
            } else if self.applies_everywhere(level, quota).await? {
                return Ok(u64::try_from(changed).unwrap_or_default());
            } else {
                sleep(PASS_PAUSE).await;
                after.clear();
            }
        }
    }

    /// Some users after `after`, in their order; and the last of them, or none once there is nobody more. Rows that somebody else has locked
    /// are left to the next pass: waiting for one with others in hand would be a deadlock with a flush.
    async fn apply_batch(
        &self,
        (level, quota): (&str, i32),
        now: DateTime<Utc>,
        after: &str,
    ) -> Result<(i64, Option<String>), PostgresError> {
        let row = sqlx::query!(
            r#"with due as (
                 select user_uuid
                 from chat_quotas
                 where membership_level = $1
                   and monthly_quota <> $2
                   and user_uuid > $4
                 order by user_uuid
                 limit $5
                 for update skip locked
             ),
             applied as (
                 update chat_quotas as quotas
                 set monthly_quota = $2,
                     level_version = quotas.level_version + 1,
                     updated_at = greatest(quotas.updated_at, $3)
                 from due
                 where quotas.user_uuid = due.user_uuid
                 returning quotas.user_uuid
             )
             select count(*) as "changed!", max(user_uuid) as last from applied"#,
            level,
            quota,
            now,
            after,
            BATCH_ROWS,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.changed, row.last))
    }

    async fn applies_everywhere(&self, level: &str, quota: i32) -> Result<bool, PostgresError> {
        let left = sqlx::query_scalar!(
            r#"select exists (select from chat_quotas where membership_level = $1 and monthly_quota <> $2) as "left!""#,
            level,
            quota,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(!left)
    }
}
