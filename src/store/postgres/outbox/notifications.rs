//! `notifications`: what the product's own systems are to be told of. A trigger writes them, in the transaction of what they tell of.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::store::postgres::{Postgres, PostgresError};

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The same at every try.
    pub id: Uuid,
    /// `quota.warning`, `quota.critical`, `quota.exhausted`, `quota.reset`, `level.changed`.
    pub kind: String,
    /// Whose.
    pub user: String,
    /// The period that it is about.
    pub period: i32,
    /// The level then.
    pub level: String,
    /// The level before, of a change.
    pub previous: Option<String>,
    /// The level that takes over.
    pub pending: Option<String>,
    /// The quota then.
    pub quota: i32,
    /// AP charged then.
    pub used: i64,
    /// When it was so.
    pub created_at: DateTime<Utc>,
    /// Tries, this one included.
    pub attempts: i32,
}

impl Postgres {
    /// Has the trigger write notifications, or not.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn set_notifies(&self, notifies: bool) -> Result<(), PostgresError> {
        sqlx::query!("update gate_settings set notifies = $1 where notifies <> $1", notifies)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Takes some that are due, the oldest first. Nobody else takes them before `until`.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn claim_notifications(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Notification>, PostgresError> {
        let rows = sqlx::query_as!(
            Notification,
            r#"update notifications
             set due_at = $2,
                 attempts = attempts + 1
             where id in (
                 select id
                 from notifications
                 where sent_at is null
                   and due_at <= $1
                 order by due_at
                 limit $3
                 for update skip locked
             )
             returning id, kind, user_uuid as "user", period, membership_level as level, previous_level as previous,
                       pending_level as pending, monthly_quota as quota, monthly_used as used, created_at, attempts"#,
            now,
            until,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// It was taken.
    ///
    /// # Errors
    /// If Postgres is away: it is told again, under the same id.
    pub async fn notification_sent(&self, id: Uuid, now: DateTime<Utc>) -> Result<(), PostgresError> {
        sqlx::query!("update notifications set sent_at = $2, last_error = null where id = $1", id, now)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// It was not taken; it is told again at `due_at`.
    ///
    /// # Errors
    /// If Postgres is away: it is told again sooner.
    pub async fn notification_failed(&self, id: Uuid, due_at: DateTime<Utc>, error: &str) -> Result<(), PostgresError> {
        sqlx::query!("update notifications set due_at = $2, last_error = $3 where id = $1", id, due_at, error)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How many are not told yet; and forgets those that were told before `before`.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn tidy_notifications(&self, before: DateTime<Utc>) -> Result<u64, PostgresError> {
        sqlx::query!("delete from notifications where sent_at < $1", before).execute(&self.pool).await?;
        let waiting = sqlx::query_scalar!(r#"select count(*) as "count!" from notifications where sent_at is null"#)
            .fetch_one(&self.pool)
            .await?;
        Ok(waiting.unsigned_abs())
    }
}
