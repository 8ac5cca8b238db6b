//! `notifications`: events for the product's own systems. A trigger writes each in the transaction that causes it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::store::postgres::{Postgres, PostgresError};

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Id, the same at every try.
    pub id: Uuid,
    /// `quota.warning`, `quota.critical`, `quota.exhausted`, `quota.reset`, `level.changed`.
    pub kind: String,
    /// User id.
    pub user: String,
    /// Period that it concerns.
    pub period: i32,
    /// Level at that time.
    pub level: String,
    /// Level before a change.
    pub previous: Option<String>,
    /// Level of the next period, if it differs.
    pub pending: Option<String>,
    /// Quota at that time.
    pub quota: i32,
    /// AP charged at that time.
    pub used: i64,
    /// Time of the event.
    pub created_at: DateTime<Utc>,
    /// Tries, including this one.
    pub attempts: i32,
}

impl Postgres {
    /// Enables or disables notifications.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn set_notifies(&self, notifies: bool) -> Result<(), PostgresError> {
        sqlx::query!("update gate_settings set notifies = $1 where notifies <> $1", notifies)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Claims due notifications, oldest first. No other gate takes them before `until`.
    ///
    /// # Errors
    /// If Postgres is unavailable.
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

    /// Marks a notification as delivered.
    ///
    /// # Errors
    /// If Postgres is unavailable; it is then delivered again under the same id.
    pub async fn notification_sent(&self, id: Uuid, now: DateTime<Utc>) -> Result<(), PostgresError> {
        sqlx::query!("update notifications set sent_at = $2, last_error = null where id = $1", id, now)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Schedules another try at `due_at` after a failed delivery.
    ///
    /// # Errors
    /// If Postgres is unavailable; the next try is then earlier.
    pub async fn notification_failed(&self, id: Uuid, due_at: DateTime<Utc>, error: &str) -> Result<(), PostgresError> {
        sqlx::query!("update notifications set due_at = $2, last_error = $3 where id = $1", id, due_at, error)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Deletes notifications delivered before `before`. Returns how many are undelivered.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn tidy_notifications(&self, before: DateTime<Utc>) -> Result<u64, PostgresError> {
        sqlx::query!("delete from notifications where sent_at < $1", before).execute(&self.pool).await?;
        let waiting = sqlx::query_scalar!(r#"select count(*) as "count!" from notifications where sent_at is null"#)
            .fetch_one(&self.pool)
            .await?;
        Ok(waiting.unsigned_abs())
    }
}
