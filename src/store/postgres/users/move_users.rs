//! Moves users to the quotas of their levels after a change of the levels (decision 0018).
//!
//! A row is moved if its level's quota has changed since the last finished change and the row was not moved since, or
//! if its quota is not that of its level. Users with a quota of their own keep it. Moving raises the level version, so
//! that the level sync sends the quota to Redis, also if the row has it already: Redis may have rolled the record by
//! the old quota.

use chrono::{DateTime, Utc};

use crate::domain::{calendar::Calendar, user_id::UserId};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    integers::{as_count, integer},
    users::roll::roll_due,
};

/// Rows of one transaction. It locks only rows that it moves, for about a tenth of a second.
const BATCH_ROWS: i64 = 2_000;

/// A batch of moved users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedBatch {
    /// Users who were moved.
    pub moved: u64,
    /// Users whose rows were locked by other transactions. Another pass moves them.
    pub left: u64,
    /// The last user of the batch, where the next one continues.
    pub last: UserId,
}

/// Queries the users of a range of ids who are to be moved. The select list and the end of the statement differ.
macro_rules! users_to_move {
    ($select:literal, $end:literal, $($argument:expr),+ $(,)?) => {
        sqlx::query_scalar!(
            $select + " from chat_quotas as quotas
             join membership_levels as levels on levels.name = quotas.membership_level
             left join membership_levels as pending on pending.name = quotas.pending_level
             cross join (select coalesce(max(version), 0) as version from level_changes where moved_at is not null) as finished
             where quotas.user_uuid > $1
               and quotas.user_uuid <= $2
               and quotas.own_quota is null
               and (quotas.monthly_quota <> levels.monthly_quota
                    or (levels.quota_version > finished.version and levels.quota_version > quotas.moved_version)
                    or (quotas.quota_reset_at <= $3 and pending.quota_version > finished.version
                        and pending.quota_version > quotas.moved_version)) " + $end,
            $($argument),+
        )
    };
}

impl Postgres {
    /// Moves some users after `after`, in the order of their ids. Rows of a past period roll first. Returns none after
    /// the last user.
    ///
    /// # Errors
    /// If Postgres is unavailable: none of the batch was moved.
    pub async fn move_users(
        &self,
        calendar: Calendar,
        now: DateTime<Utc>,
        after: Option<&UserId>,
    ) -> Result<Option<MovedBatch>, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        let after = after.map_or("", UserId::as_str);
        // A batch is a range of ids, so that it takes as long when few users are to be moved.
        let last = sqlx::query_scalar!(
            "select max(user_uuid)
             from (select user_uuid from chat_quotas where user_uuid > $1 order by user_uuid limit $2) as range",
            after,
            BATCH_ROWS,
        )
        .fetch_one(&mut transaction)
        .await?;
        let Some(last) = last else { return Ok(None) };
        // Waiting for a locked row while holding others could deadlock with a flush.
        let users = users_to_move!(
            "select quotas.user_uuid",
            "order by quotas.user_uuid for update of quotas skip locked",
            after,
            last,
            now,
        )
        .fetch_all(&mut transaction)
        .await?;
        move_locked(&mut transaction, &users, calendar, now).await?;
        let left =
            users_to_move!(r#"select count(*) as "left!""#, "", after, last, now).fetch_one(&mut transaction).await?;
        transaction.commit().await?;
        let last = UserId::parse(&last).map_err(|_| PostgresError::inconsistent("chat_quotas", "user_uuid", &last))?;
        Ok(Some(MovedBatch { moved: users.len() as u64, left: as_count(left), last }))
    }

    /// Gives a user the quota of the user's level, whatever the row has. The level version becomes higher than
    /// `known_version`, the one of the record in Redis.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn repair_level(
        &self,
        user: &UserId,
        known_version: u32,
        calendar: Calendar,
        now: DateTime<Utc>,
    ) -> Result<(), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "update chat_quotas
             set level_version = greatest(level_version, $2)
             where user_uuid = $1",
            user.as_str(),
            integer(known_version),
        )
        .execute(&mut transaction)
        .await?;
        move_locked(&mut transaction, &[user.to_string()], calendar, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Counts the users of each level.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn users_by_level(&self) -> Result<Vec<(String, u64)>, PostgresError> {
        let rows =
            sqlx::query!(r#"select membership_level, count(*) as "users!" from chat_quotas group by membership_level"#)
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|row| (row.membership_level, as_count(row.users))).collect())
    }
}

/// Moves rows that this transaction has locked.
async fn move_locked(
    connection: &mut Transaction<'_>,
    users: &[String],
    calendar: Calendar,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    if users.is_empty() {
        return Ok(());
    }
    // The quota of a past period stays what it was.
    roll_due(connection, users, calendar, now).await?;
    sqlx::query!(
        "update chat_quotas as quotas
         set monthly_quota = levels.monthly_quota,
             moved_version = levels.quota_version,
             level_version = quotas.level_version + 1,
             updated_at = greatest(quotas.updated_at, $2)
         from membership_levels as levels
         where quotas.user_uuid = any ($1)
           and levels.name = quotas.membership_level",
        users,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
