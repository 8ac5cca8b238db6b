//! Level changes that Redis has not received (`chat_quotas.synced_version`).

use crate::domain::user_id::UserId;
use crate::store::postgres::{Postgres, PostgresError, integers::integer};

impl Postgres {
    /// Records that Redis has received a user's level version, for the chat and so many other meters. Records nothing
    /// if another gate has added a meter: the version is then sent again.
    ///
    /// # Errors
    /// If Postgres is unavailable; the version is then sent again, which is harmless.
    pub async fn note_synced(&self, user: &UserId, level_version: u32, meters: usize) -> Result<(), PostgresError> {
        sqlx::query!(
            "update chat_quotas
             set synced_version = $2
             where user_uuid = $1
               and synced_version < $2
               and (select count(*) from meters) = $3",
            user.as_str(),
            integer(level_version),
            i64::try_from(meters).unwrap_or(i64::MAX),
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
}
