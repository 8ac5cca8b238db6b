//! Pages for people who look: users, a user's closed months, a user's messages. Each page is one walk along an index.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{calendar::Period, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, users::chat_quotas::parse_period};

/// A user's row, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUser {
    /// Who.
    pub user: String,
    /// The level of the row's period.
    pub level: String,
    /// The level of the next period, where it is another one.
    pub pending: Option<String>,
    /// The period that `used` counts in.
    pub period: i32,
    /// AP of the period.
    pub quota: i32,
    /// AP charged in the period, as far as it is flushed.
    pub used: i64,
    /// AP charged ever.
    pub total_used: i64,
    /// When the row changed last.
    pub updated_at: DateTime<Utc>,
}

/// A period that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedMonth {
    /// Which.
    pub period: Period,
    /// The level at its end.
    pub level: String,
    /// Its quota.
    pub quota: i32,
    /// AP charged in it.
    pub used: i64,
    /// What the quota could not cover.
    pub overage: i64,
}

/// One charge, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMessage {
    /// The usage event.
    pub event: Uuid,
    /// When it was charged.
    pub at: DateTime<Utc>,
    /// The conversation.
    pub session: String,
    /// The user's level at the time.
    pub level: String,
    /// The model that wrote the answer; empty where the caller named none.
    pub model: String,
    /// The period that was charged.
    pub period: i32,
    /// What was charged.
    pub ap: i32,
    /// What the quota could not cover.
    pub overage: i32,
    /// Tokens that the model counted.
    pub tokens: i32,
    /// What led to the charge.
    pub kind: String,
}

impl Postgres {
    /// Users whose id begins with `prefix`, after `after`, in the order of ids.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn list_users(
        &self,
        prefix: &str,
        level: Option<&str>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<ListedUser>, PostgresError> {
        // Greater than any character of an id.
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

    /// A user's closed months, newest first.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn closed_months(&self, user: &UserId, limit: u32) -> Result<Vec<ClosedMonth>, PostgresError> {
        let rows = sqlx::query!(
            "select period, membership_level, monthly_quota, used, overage
             from chat_quota_months
             where user_uuid = $1
             order by period desc
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

    /// A user's charges before an instant and event, newest first.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn list_messages(
        &self,
        user: &UserId,
        before: (DateTime<Utc>, Uuid),
        limit: u32,
    ) -> Result<Vec<ListedMessage>, PostgresError> {
        let messages = sqlx::query_as!(
            ListedMessage,
            r#"select uuid as event, created_at as at, session_id as session, membership_level as level, model, period, ap_used as ap,
                    overage, tokens_used as tokens, kind
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
