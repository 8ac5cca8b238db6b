//! Which memberships Redis has not heard of yet: `chat_quotas.told_version`.

use chrono::{DateTime, Utc};

use super::{Postgres, PostgresError};
use crate::domain::{ap::Ap, user_id::UserId};

impl Postgres {
    /// Notes that Redis has heard of a user's level version.
    ///
    /// # Errors
    /// If Postgres is away; then Redis is told again, which is harmless.
    pub async fn note_told(&self, user: &UserId, level_version: u32) -> Result<(), PostgresError> {
        sqlx::query!(
            "update chat_quotas
             set told_version = $2
             where user_uuid = $1
               and told_version < $2",
            user.as_str(),
            i32::try_from(level_version).unwrap_or(i32::MAX),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Users whose level changed before `before` without Redis having heard of it.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn untold_users(&self, before: DateTime<Utc>, limit: u32) -> Result<Vec<UserId>, PostgresError> {
        let users = sqlx::query_scalar!(
            "select user_uuid
             from chat_quotas
             where told_version < level_version
               and updated_at < $1
             order by user_uuid
             limit $2",
            before,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users.iter().filter_map(|user| UserId::parse(user).ok()).collect())
    }

    /// Gives every user the quota that their level has now, instead of from the next period. Returns how many changed.
    ///
    /// # Errors
    /// If Postgres is away; then nobody's changed.
    pub async fn apply_level(&self, level: &str, quota: Ap, now: DateTime<Utc>) -> Result<u64, PostgresError> {
        let done = sqlx::query!(
            "update chat_quotas
             set monthly_quota = $2,
                 level_version = level_version + 1,
                 updated_at = greatest(updated_at, $3)
             where membership_level = $1
               and monthly_quota <> $2",
            level,
            i32::try_from(quota.get()).unwrap_or(i32::MAX),
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
