//! Quota changes that take effect immediately, and level changes that Redis has not received
//! (`chat_quotas.synced_version`).

use std::time::Duration;

use chrono::{DateTime, Utc};

use tokio::time::sleep;

use crate::domain::{ap::Ap, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, integers::integer};

/// Rows per statement, well within the statement timeout.
const BATCH_ROWS: i64 = 5_000;
/// Pause between two passes. Row locks are short.
const PASS_PAUSE: Duration = Duration::from_millis(100);

impl Postgres {
    /// Records that Redis has received a user's level version.
    ///
    /// # Errors
    /// If Postgres is unavailable; the version is then sent again, which is harmless.
    pub async fn note_synced(&self, user: &UserId, level_version: u32) -> Result<(), PostgresError> {
        sqlx::query!(
            "update chat_quotas
             set synced_version = $2
             where user_uuid = $1
               and synced_version < $2",
            user.as_str(),
            integer(level_version),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns users after `after`, in user order, whose level change Redis has not received.
    ///
    /// # Errors
    /// If Postgres is unavailable.
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

    /// Gives every user of a level its new quota now instead of at the next period. Returns how many changed.
    ///
    /// # Errors
    /// If Postgres is unavailable. Completed changes remain; another call makes the rest.
    pub async fn apply_level(&self, level: &str, quota: Ap, now: DateTime<Utc>) -> Result<u64, PostgresError> {
        let quota = integer(quota.get());
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

    /// Updates some users after `after`, in user order. Returns their number and the last one, or `None` if none is
    /// left. Skips locked rows until the next pass: waiting for one while holding others could deadlock with a flush.
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
