//! Sets quotas of single users, and blocks users, each in one transaction. The row rolls first if its period is over.

use chrono::{DateTime, Utc};

use crate::domain::{
    author::Author,
    own_quota::{OwnQuota, UserChange},
    user_id::UserId,
};
use crate::store::postgres::{
    NewUser, Postgres, PostgresError,
    connections::Transaction,
    integers::integer,
    users::change_level::{LevelChange, create, existing, roll},
};

impl Postgres {
    /// Changes a user's own quota or block. Creates the row of an unknown user first. What is as requested stays
    /// untouched. Returns `None` and changes nothing if the row's level version is not `if_version`.
    ///
    /// # Errors
    /// If the user was forgotten, or Postgres is unavailable.
    pub async fn change_user(
        &self,
        user: &UserId,
        change: UserChange,
        if_version: Option<u32>,
        author: &Author,
        first: &NewUser,
        today_start: DateTime<Utc>,
    ) -> Result<Option<LevelChange>, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        create(&mut transaction, user, first).await?;
        let own =
            sqlx::query!("select own_quota, blocked from chat_quotas where user_uuid = $1 for update", user.as_str());
        let own = own.fetch_optional(&mut transaction).await?.ok_or_else(|| PostgresError::Forgotten(user.clone()))?;
        let before = roll(&mut transaction, user, first, today_start).await?;
        if if_version.is_some_and(|seen| seen != before.level_version) {
            return Ok(None);
        }
        let quota = change.quota.map(|quota| quota.map(|own: OwnQuota| integer(own.ap().get())));
        if let Some(quota) = quota.filter(|quota| *quota != own.own_quota) {
            set_quota(&mut transaction, user, quota, first.now).await?;
            note(&mut transaction, user, ("quota", own.own_quota, quota), author, first.now).await?;
        }
        if let Some(blocked) = change.blocked.filter(|blocked| *blocked != own.blocked) {
            set_blocked(&mut transaction, user, blocked, first.now).await?;
            let kind = if blocked { "blocked" } else { "unblocked" };
            note(&mut transaction, user, (kind, None, None), author, first.now).await?;
        }
        let after = existing(&mut transaction, user, today_start).await?;
        transaction.commit().await?;
        Ok(Some(LevelChange { before, after }))
    }
}

/// Without a quota of the user's own, that of the level counts again.
async fn set_quota(
    connection: &mut Transaction<'_>,
    user: &UserId,
    quota: Option<i32>,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "update chat_quotas as quotas
         set own_quota = $2,
             monthly_quota = levels.monthly_quota,
             level_version = quotas.level_version + 1,
             updated_at = greatest(quotas.updated_at, $3)
         from membership_levels as levels
         where quotas.user_uuid = $1
           and levels.name = quotas.membership_level",
        user.as_str(),
        quota,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_blocked(
    connection: &mut Transaction<'_>,
    user: &UserId,
    blocked: bool,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "update chat_quotas
         set blocked = $2,
             level_version = level_version + 1,
             updated_at = greatest(updated_at, $3)
         where user_uuid = $1",
        user.as_str(),
        blocked,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn note(
    connection: &mut Transaction<'_>,
    user: &UserId,
    (kind, quota_before, quota_after): (&str, Option<i32>, Option<i32>),
    author: &Author,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into user_changes (changed_at, changed_by, reason, user_uuid, kind, quota_before, quota_after)
         values ($1, $2, $3, $4, $5, $6, $7)",
        now,
        author.by,
        author.reason,
        user.as_str(),
        kind,
        quota_before,
        quota_after,
    )
    .execute(connection)
    .await?;
    Ok(())
}
