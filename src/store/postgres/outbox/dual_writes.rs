//! `dual_writes`: charges waiting for delivery to the old credits system.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{calendar::Period, usage::UsageEvent, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction, integers::integer};

/// A charge that the old system has not confirmed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DualWrite {
    /// Id of the usage event, the same at every try.
    pub event: Uuid,
    /// User id.
    pub user: String,
    /// Conversation.
    pub session: String,
    /// AP charged.
    pub ap: i32,
    /// Tokens that the model counted.
    pub tokens: i32,
    /// Time of the charge.
    pub charged_at: DateTime<Utc>,
    /// Tries, including this one.
    pub attempts: i32,
}

/// A user's usage, and how much of it the old system may not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedByUser {
    /// User id.
    pub user: String,
    /// AP charged in the period.
    pub used: i64,
    /// Part of `used` that waits for delivery.
    pub waiting: i64,
}

/// Enqueues charges of the chat in the transaction that writes them. The old system has no other meter.
pub(in crate::store::postgres) async fn enqueue(
    connection: &mut Transaction<'_>,
    events: &[&UsageEvent],
) -> Result<(), PostgresError> {
    let charges: Vec<&&UsageEvent> =
        events.iter().filter(|event| event.ap.get() > 0 && event.meter.is_chat()).collect();
    let events: Vec<Uuid> = charges.iter().map(|event| event.id).collect();
    let users: Vec<&str> = charges.iter().map(|event| event.user.as_str()).collect();
    let sessions: Vec<&str> = charges.iter().map(|event| event.session.as_str()).collect();
    let periods: Vec<i32> = charges.iter().map(|event| event.period.into()).collect();
    let aps: Vec<i32> = charges.iter().map(|event| integer(event.ap.get())).collect();
    let tokens: Vec<i32> = charges.iter().map(|event| event.tokens.into()).collect();
    let times: Vec<DateTime<Utc>> = charges.iter().map(|event| event.at).collect();
    sqlx::query!(
        "insert into dual_writes (event, user_uuid, session_id, period, ap, tokens, charged_at, due_at)
         select event, user_uuid, session_id, period, ap, tokens, charged_at, charged_at
         from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::integer[], $6::integer[], $7::timestamptz[])
             as charge (event, user_uuid, session_id, period, ap, tokens, charged_at)
         on conflict (event) do nothing",
        &events,
        &users as &[&str],
        &sessions as &[&str],
        &periods,
        &aps,
        &tokens,
        &times,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Postgres {
    /// Claims due charges, oldest first. No other gate takes them before `until`.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn claim_dual_writes(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<DualWrite>, PostgresError> {
        let rows = sqlx::query_as!(
            DualWrite,
            r#"update dual_writes
             set due_at = $2,
                 attempts = attempts + 1
             where event in (
                 select event
                 from dual_writes
                 where due_at <= $1
                 order by due_at
                 limit $3
                 for update skip locked
             )
             returning event, user_uuid as "user", session_id as "session", ap, tokens, charged_at, attempts"#,
            now,
            until,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// Removes a confirmed charge.
    ///
    /// # Errors
    /// If Postgres is unavailable; the charge is then delivered again.
    pub async fn dual_write_done(&self, event: Uuid) -> Result<(), PostgresError> {
        sqlx::query!("delete from dual_writes where event = $1", event).execute(&self.pool).await?;
        Ok(())
    }

    /// Schedules another try at `due_at` after a failed delivery.
    ///
    /// # Errors
    /// If Postgres is unavailable; the next try is then earlier.
    pub async fn dual_write_failed(
        &self,
        event: Uuid,
        due_at: DateTime<Utc>,
        error: &str,
    ) -> Result<(), PostgresError> {
        sqlx::query!("update dual_writes set due_at = $2, last_error = $3 where event = $1", event, due_at, error)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Returns the number of waiting charges.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn dual_writes_waiting(&self) -> Result<u64, PostgresError> {
        let waiting =
            sqlx::query_scalar!(r#"select count(*) as "count!" from dual_writes"#).fetch_one(&self.pool).await?;
        Ok(waiting.unsigned_abs())
    }

    /// Returns the usage of users after `after` in a period, in user order.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn used_by_users(
        &self,
        period: Period,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UsedByUser>, PostgresError> {
        let rows = sqlx::query_as!(
            UsedByUser,
            r#"select user_uuid as "user", monthly_used as "used",
                    coalesce((select sum(ap)
                              from dual_writes
                              where dual_writes.user_uuid = chat_quotas.user_uuid
                                and dual_writes.period = chat_quotas.period), 0)::bigint as "waiting!"
             from chat_quotas
             where period = $1
               and user_uuid > $2
             order by user_uuid
             limit $3"#,
            i32::from(period),
            after.map_or("", UserId::as_str),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }
}
