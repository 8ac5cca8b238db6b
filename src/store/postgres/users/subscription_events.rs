//! `subscription_events`: every event of a subscription, and which of them decides its state.

use chrono::{DateTime, Utc};

use crate::domain::{
    level::LevelName,
    subscription::{OrderedEvent, SubscriptionState, last_of_second},
    user_id::UserId,
};
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction, users::subscriptions::AppliedEvent};

/// The event that decides a subscription's state.
pub(super) struct Deciding {
    pub(super) event_id: String,
    pub(super) event_at: DateTime<Utc>,
    pub(super) stage: i16,
    pub(super) user: UserId,
    pub(super) level: Option<String>,
}

impl Postgres {
    /// Deletes events that were received before `before`.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn forget_subscription_events(&self, before: DateTime<Utc>) -> Result<u64, PostgresError> {
        let done =
            sqlx::query!("delete from subscription_events where received_at < $1", before).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

/// Returns false if the event is known.
pub(super) async fn record(
    connection: &mut Transaction<'_>,
    event: &AppliedEvent<'_>,
    now: DateTime<Utc>,
) -> Result<bool, PostgresError> {
    let done = sqlx::query!(
        "insert into subscription_events
             (event_id, subscription, event_at, stage, user_uuid, membership_level, state_before, received_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (event_id) do nothing",
        event.id,
        event.subscription,
        event.at,
        event.stage as i16,
        event.state.user.as_str(),
        event.state.level.as_ref().map(LevelName::as_str),
        event.before.map(SubscriptionState::text),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Of the recorded events of a second, returns the one that decides. None if the second has only the event of an older
/// gate that has not applied it.
pub(super) async fn deciding(
    connection: &mut Transaction<'_>,
    subscription: &str,
    second: DateTime<Utc>,
) -> Result<Option<Deciding>, PostgresError> {
    let rows = sqlx::query!(
        "select event_id, event_at, stage, user_uuid, membership_level, state_before
         from subscription_events
         where subscription = $1
           and event_at = $2
         order by received",
        subscription,
        second,
    )
    .fetch_all(&mut *connection)
    .await?;
    let ordered: Vec<OrderedEvent> = rows
        .iter()
        .map(|row| OrderedEvent {
            stage: row.stage,
            after: SubscriptionState::text_of(&row.user_uuid, row.membership_level.as_deref()),
            before: row.state_before.clone(),
        })
        .collect();
    let prior = if rows.len() > 1 { state_before_second(connection, subscription, second).await? } else { None };
    let row = last_of_second(&ordered, prior.as_deref()).and_then(|last| rows.into_iter().nth(last));
    row.map(|row| {
        Ok(Deciding {
            user: parse_user(&row.user_uuid, subscription)?,
            event_id: row.event_id,
            event_at: row.event_at,
            stage: row.stage,
            level: row.membership_level,
        })
    })
    .transpose()
}

async fn state_before_second(
    connection: &mut Transaction<'_>,
    subscription: &str,
    second: DateTime<Utc>,
) -> Result<Option<String>, PostgresError> {
    let row = sqlx::query!(
        "select user_uuid, membership_level
         from subscription_events
         where subscription = $1
           and event_at < $2
         order by event_at desc, stage desc, received desc
         limit 1",
        subscription,
        second,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| SubscriptionState::text_of(&row.user_uuid, row.membership_level.as_deref())))
}

pub(super) fn parse_user(user: &str, subscription: &str) -> Result<UserId, PostgresError> {
    UserId::parse(user).map_err(|_| PostgresError::inconsistent("subscriptions", "user_uuid", subscription))
}
