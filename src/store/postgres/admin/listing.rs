//! Lists for administrators: users, a user's closed months, a user's messages. Each page is one index scan.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{calendar::Period, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, users::chat_quotas::parse_period};

/// A user's row in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUser {
    /// User id.
    pub user: String,
    /// Level in the row's period.
    pub level: String,
    /// Level of the next period, if it differs.
    pub pending: Option<String>,
    /// Period that `used` counts in.
    pub period: i32,
    /// AP per period.
    pub quota: i32,
    /// AP charged in the period and flushed.
    pub used: i64,
    /// AP charged in all periods.
    pub total_used: i64,
    /// Time of the row's last change.
    pub updated_at: DateTime<Utc>,
}

/// A period that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedMonth {
    /// The period.
    pub period: Period,
    /// Level at its end.
    pub level: String,
    /// Quota in AP.
    pub quota: i32,
    /// AP charged.
    pub used: i64,
    /// AP that the quota did not cover.
    pub overage: i64,
}

/// A charge in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMessage {
    /// Id of the usage event.
    pub event: Uuid,
    /// Time of the charge.
    pub at: DateTime<Utc>,
    /// Conversation.
    pub session: String,
    /// User's level at the time.
    pub level: String,
    /// Model that wrote the answer; empty if the caller named none.
    pub model: String,
    /// Period that was charged.
    pub period: i32,
    /// AP charged.
    pub ap: i32,
    /// AP that the quota did not cover.
    pub overage: i32,
    /// Tokens that the model counted.
    pub tokens: i32,
    /// Input tokens, including cached ones, if the kinds are known.
    pub input_tokens: Option<i32>,
    /// The part of them that the model had cached.
    pub cached_input_tokens: Option<i32>,
    /// Output tokens.
    pub output_tokens: Option<i32>,
    /// Whether the gate has estimated them.
    pub tokens_estimated: bool,
    /// Kind of the charge.
    pub kind: String,
    /// Name of the meter.
    pub meter: String,
}

impl Postgres {
    /// Returns users whose id starts with `prefix` and sorts after `after`, in id order.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn list_users(
        &self,
        prefix: &str,
        level: Option<&str>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<ListedUser>, PostgresError> {
        // `~` sorts after every character of an id.
        let end = format!("{prefix}~");
        let users = sqlx::query_as!(
            ListedUser,
            r#"select user_uuid as "user", membership_level as level, pending_level as pending, period, monthly_quota as quota,
                    monthly_used as used, total_used, updated_at
             from chat_quotas
             where user_uuid >= $1
               and user_uuid < $2
               and user_uuid > $3
               and ($4::text is null or membership_level = $4)
             order by user_uuid
             limit $5"#,
            prefix,
            end,
            after,
            level,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users)
    }

    /// Returns a user's closed periods, newest first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn closed_months(&self, user: &UserId, limit: u32) -> Result<Vec<ClosedMonth>, PostgresError> {
        let rows = sqlx::query!(
            "select period, membership_level, monthly_quota, used, overage
             from chat_quota_months
             where user_uuid = $1
             order by period_begins(period) desc
             limit $2",
            user.as_str(),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let wrong = || PostgresError::inconsistent("chat_quota_months", "period", user);
        rows.into_iter()
            .map(|row| {
                Ok(ClosedMonth {
                    period: parse_period(row.period).ok_or_else(wrong)?,
                    level: row.membership_level,
                    quota: row.monthly_quota,
                    used: row.used,
                    overage: row.overage,
                })
            })
            .collect()
    }

    /// Returns a user's charges before a time and event, newest first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn list_messages(
        &self,
        user: &UserId,
        before: (DateTime<Utc>, Uuid),
        limit: u32,
    ) -> Result<Vec<ListedMessage>, PostgresError> {
        let messages = sqlx::query_as!(
            ListedMessage,
            r#"select uuid as event, created_at as at, session_id as session, membership_level as level, model, period, ap_used as ap,
                    overage, tokens_used as tokens, input_tokens, cached_input_tokens, output_tokens, tokens_estimated, kind,
                    coalesce((select name from meters where code = chat_usage_logs.meter), 'chat') as "meter!"
             from chat_usage_logs
             where user_uuid = $1
               and created_at <= $2
               and (created_at, uuid) < ($2, $3)
             order by created_at desc, uuid desc
             limit $4"#,
            user.as_str(),
            before.0,
            before.1,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(messages)
    }
}
