//! `subscriptions`: the latest billing event of each subscription.

use crate::domain::{level::LevelName, subscription::SubscriptionEvent, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError};

/// Result of recording an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// The event is the newest of its subscription, and the user's level does not follow it yet.
    Pending,
    /// A newer event is known, or this one was applied before.
    Known,
}

impl Postgres {
    /// Records an event unless a newer one of its subscription is known. Of two events in the same second, the one that
    /// ends it counts.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn note_subscription(
        &self,
        event: &SubscriptionEvent,
        level: Option<&LevelName>,
    ) -> Result<Noted, PostgresError> {
        let pending = sqlx::query_scalar!(
            r#"with noted as (
                 insert into subscriptions as known (subscription, user_uuid, membership_level, event_id, event_at)
                 values ($1, $2, $3, $4, $5)
                 on conflict (subscription) do update
                 set user_uuid = excluded.user_uuid,
                     membership_level = excluded.membership_level,
                     event_id = excluded.event_id,
                     event_at = excluded.event_at,
                     applied = false
                 where known.event_at < excluded.event_at
                    or (known.event_at = excluded.event_at
                        and known.event_id <> excluded.event_id
                        and known.membership_level is not null)
                 returning 1
             )
             select exists (select from noted)
                 or exists (select from subscriptions where subscription = $1 and event_id = $4 and not applied) as "pending!""#,
            event.subscription,
            event.user.as_str(),
            level.map(LevelName::as_str),
            event.id,
            event.at,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(if pending { Noted::Pending } else { Noted::Known })
    }

    /// Returns the levels that a user's subscriptions currently pay for.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn subscribed_levels(&self, user: &UserId) -> Result<Vec<String>, PostgresError> {
        let levels = sqlx::query_scalar!(
            r#"select membership_level as "level!"
             from subscriptions
             where user_uuid = $1
               and membership_level is not null"#,
            user.as_str(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(levels)
    }

    /// Records that the user's level follows an event.
    ///
    /// # Errors
    /// If Postgres is unavailable; the event is then applied again, which is harmless.
    pub async fn subscription_applied(&self, event: &SubscriptionEvent) -> Result<(), PostgresError> {
        sqlx::query!(
            "update subscriptions
             set applied = true
             where subscription = $1
               and event_id = $2",
            event.subscription,
            event.id,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
