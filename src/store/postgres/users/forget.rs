//! Replaces a user's id by a pseudonym in every table, in one transaction.
//!
//! What sums need keeps its rows, under the pseudonym: the quota, the closed months, the log. What only leads back to
//! the person is deleted: subscriptions, notifications, items of the inbox. Reasons are removed.

use chrono::{DateTime, Utc};

use crate::domain::{author::Author, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction, integers::as_count};

/// The tables that contain ids of users. A table that is missing here would keep a forgotten user's id.
pub const TABLES_WITH_USERS: [&str; 13] = [
    "chat_quota_months",
    "chat_quotas",
    "chat_usage_logs",
    "dead_letters",
    "dual_writes",
    "grants",
    "inbox",
    "meter_usage",
    "notifications",
    "rollout_changes",
    "subscription_events",
    "subscriptions",
    "user_changes",
];

/// What stands for each conversation of a forgotten user.
const SESSION: &str = "forgotten";
/// What stands for a reason, which may name the person.
const REMOVED: &str = "(removed)";

/// What Postgres has about a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Tables that contain the user, and the number of their rows that do, in the order of the names.
    pub rows: Vec<(String, u64)>,
    /// Accepted settlements and messages that are not applied yet.
    pub inbox_waiting: u64,
    /// Charges that the old credits system has not got yet.
    pub dual_writes_waiting: u64,
    /// Unreadable entries of the user's partition. They may be about any of its users.
    pub unreadable: u64,
}

impl Postgres {
    /// Returns whether this role may replace ids in the log. The gate's own may not.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn may_forget(&self) -> Result<bool, PostgresError> {
        let may = sqlx::query_scalar!(r#"select has_table_privilege('chat_usage_logs', 'update') as "may!""#);
        Ok(may.fetch_one(&self.pool).await?)
    }

    /// Counts what Postgres has about a user.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn traces(&self, user: &UserId, partition: u16) -> Result<Traces, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let rows = sqlx::query!(
            r#"select found.name as "name!", found.rows as "rows!"
             from (
                 select 'chat_quota_months' as name, count(*) as rows from chat_quota_months where user_uuid = $1
                 union all
                 select 'chat_quotas', count(*) from chat_quotas where user_uuid = $1
                 union all
                 select 'chat_usage_logs', count(*) from chat_usage_logs where user_uuid = $1
                 union all
                 select 'dead_letters', count(*) from dead_letters
                 where user_uuid = $1
                    or (event is not null and position(convert_to('"receiver":"' || $1 || '"', 'UTF8') in payload) > 0)
                 union all
                 select 'dual_writes', count(*) from dual_writes where user_uuid = $1
                 union all
                 select 'grants', count(*) from grants where user_uuid = $1 or received_from = $1
                 union all
                 select 'inbox', count(*) from inbox where user_uuid = $1
                 union all
                 select 'meter_usage', count(*) from meter_usage where user_uuid = $1
                 union all
                 select 'notifications', count(*) from notifications where user_uuid = $1
                 union all
                 select 'rollout_changes', count(*) from rollout_changes where $1 = any (always_in || always_out)
                 union all
                 select 'subscription_events', count(*) from subscription_events
                 where user_uuid = $1 or split_part(state_before, ' ', 1) = $1
                 union all
                 select 'subscriptions', count(*) from subscriptions where user_uuid = $1
                 union all
                 select 'user_changes', count(*) from user_changes where user_uuid = $1
             ) as found
             where found.rows > 0
             order by found.name"#,
            user.as_str(),
        )
        .fetch_all(&mut snapshot)
        .await?;
        let waiting = sqlx::query!(
            r#"select (select count(*) from inbox where user_uuid = $1 and settled_at is null) as "inbox!",
                    (select count(*) from dual_writes where user_uuid = $1) as "dual_writes!",
                    (select count(*) from dead_letters where partition = $2 and event is null) as "unreadable!""#,
            user.as_str(),
            i16::try_from(partition).unwrap_or(i16::MAX),
        )
        .fetch_one(&mut snapshot)
        .await?;
        Ok(Traces {
            rows: rows.into_iter().map(|row| (row.name, as_count(row.rows))).collect(),
            inbox_waiting: as_count(waiting.inbox),
            dual_writes_waiting: as_count(waiting.dual_writes),
            unreadable: as_count(waiting.unreadable),
        })
    }

    /// Replaces a user's id by the pseudonym that [`begin_to_forget`](Self::begin_to_forget) has returned, and records
    /// that under the pseudonym. All charges of the user must be in the log, and no new ones possible.
    ///
    /// # Errors
    /// If Postgres is unavailable, or the role may not change the log: nothing is replaced.
    pub async fn forget(
        &self,
        user: &UserId,
        pseudonym: &UserId,
        author: &Author,
        now: DateTime<Utc>,
    ) -> Result<(), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("set local statement_timeout = 0").execute(&mut transaction).await?;
        // The log first, which takes longest: no other transaction waits for its rows.
        rename_log(&mut transaction, user, pseudonym).await?;
        sqlx::query!("select from chat_quotas where user_uuid = $1 for update", user.as_str())
            .execute(&mut transaction)
            .await?;
        rename_totals(&mut transaction, user, pseudonym).await?;
        rename_letters(&mut transaction, user, pseudonym).await?;
        rename_changes(&mut transaction, user, pseudonym).await?;
        delete_links(&mut transaction, user).await?;
        sqlx::query!(
            "insert into user_changes (changed_at, changed_by, reason, user_uuid, kind)
             values ($1, $2, $3, $4, 'forgotten')",
            now,
            author.by,
            author.reason,
            pseudonym.as_str(),
        )
        .execute(&mut transaction)
        .await?;
        sqlx::query!(
            "update forgotten_users set pseudonym = null where digest = sha256(convert_to($1, 'UTF8'))",
            user.as_str(),
        )
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The id of an import is a digest of the user's.
async fn rename_log(connection: &mut Transaction<'_>, user: &UserId, pseudonym: &UserId) -> Result<(), PostgresError> {
    sqlx::query!(
        "update chat_usage_logs
         set user_uuid = $2,
             session_id = $3,
             uuid = case kind when 'import' then gen_random_uuid() else uuid end
         where user_uuid = $1",
        user.as_str(),
        pseudonym.as_str(),
        SESSION,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn rename_totals(
    connection: &mut Transaction<'_>,
    user: &UserId,
    pseudonym: &UserId,
) -> Result<(), PostgresError> {
    sqlx::query!("update chat_quotas set user_uuid = $2 where user_uuid = $1", user.as_str(), pseudonym.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!("update chat_quota_months set user_uuid = $2 where user_uuid = $1", user.as_str(), pseudonym.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!("update meter_usage set user_uuid = $2 where user_uuid = $1", user.as_str(), pseudonym.as_str())
        .execute(&mut *connection)
        .await?;
    // Payments lead to the person in the billing system.
    sqlx::query!(
        "update grants
         set user_uuid = $2,
             external_id = null,
             payment = null,
             reason = $3,
             void_reason = case when void_reason is not null then $3 end
         where user_uuid = $1",
        user.as_str(),
        pseudonym.as_str(),
        REMOVED,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update grants set received_from = $2, reason = $3 where received_from = $1",
        user.as_str(),
        pseudonym.as_str(),
        REMOVED,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A letter contains the whole event, so it can still be replayed, for the pseudonym. That of a transfer also names the
/// receiver.
async fn rename_letters(
    connection: &mut Transaction<'_>,
    user: &UserId,
    pseudonym: &UserId,
) -> Result<(), PostgresError> {
    let letters = sqlx::query!(
        r#"select id, payload
         from dead_letters
         where user_uuid = $1
            or (event is not null and position(convert_to('"receiver":"' || $1 || '"', 'UTF8') in payload) > 0)
         for update"#,
        user.as_str(),
    )
    .fetch_all(&mut *connection)
    .await?;
    for letter in letters {
        sqlx::query!(
            "update dead_letters
             set user_uuid = case when user_uuid = $5 then $2 else user_uuid end,
                 payload = $3,
                 reason = $4
             where id = $1",
            letter.id,
            pseudonym.as_str(),
            renamed(&letter.payload, user, pseudonym),
            REMOVED,
            user.as_str(),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The event of a letter with the pseudonym. What was made unreadable by hand is removed.
fn renamed(payload: &[u8], user: &UserId, pseudonym: &UserId) -> Vec<u8> {
    let event = serde_json::from_slice::<serde_json::Value>(payload).ok().filter(serde_json::Value::is_object);
    let Some(mut event) = event else { return REMOVED.into() };
    if event["userUuid"] == user.as_str() {
        event["userUuid"] = pseudonym.as_str().into();
        event["sessionId"] = SESSION.into();
    }
    if let Some(receipt) = event.get_mut("receipt") {
        if receipt["receiver"] == user.as_str() {
            receipt["receiver"] = pseudonym.as_str().into();
        }
        receipt["reason"] = REMOVED.into();
    }
    event.to_string().into_bytes()
}

async fn rename_changes(
    connection: &mut Transaction<'_>,
    user: &UserId,
    pseudonym: &UserId,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "update user_changes set user_uuid = $2, reason = $3 where user_uuid = $1",
        user.as_str(),
        pseudonym.as_str(),
        REMOVED,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update rollout_changes
         set always_in = array_replace(always_in, $1, $2),
             always_out = array_replace(always_out, $1, $2),
             reason = $3
         where $1 = any (always_in || always_out)",
        user.as_str(),
        pseudonym.as_str(),
        REMOVED,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes rows that no sum needs, and that would lead back to the person in other systems.
async fn delete_links(connection: &mut Transaction<'_>, user: &UserId) -> Result<(), PostgresError> {
    sqlx::query!("delete from subscriptions where user_uuid = $1", user.as_str()).execute(&mut *connection).await?;
    sqlx::query!("delete from subscription_events where user_uuid = $1", user.as_str())
        .execute(&mut *connection)
        .await?;
    // A subscription that has moved to another user.
    sqlx::query!(
        "update subscription_events set state_before = null where split_part(state_before, ' ', 1) = $1",
        user.as_str()
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("delete from inbox where user_uuid = $1", user.as_str()).execute(&mut *connection).await?;
    sqlx::query!("delete from dual_writes where user_uuid = $1", user.as_str()).execute(&mut *connection).await?;
    sqlx::query!("delete from notifications where user_uuid = $1", user.as_str()).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_keeps_its_charge_and_loses_its_user_and_conversation() {
        let (alice, pseudonym) = (UserId::parse("alice").unwrap(), UserId::parse("forgotten-1").unwrap());
        let payload = br#"{"userUuid":"alice","sessionId":"alice's chat","apUsed":5}"#;
        let event: serde_json::Value = serde_json::from_slice(&renamed(payload, &alice, &pseudonym)).unwrap();
        assert_eq!(event, serde_json::json!({"userUuid": "forgotten-1", "sessionId": "forgotten", "apUsed": 5}));
        assert_eq!(renamed(b"alice {", &alice, &pseudonym), b"(removed)");
    }

    #[test]
    fn a_letter_of_a_transfer_loses_its_receiver_and_keeps_its_sender() {
        let (alice, pseudonym) = (UserId::parse("alice").unwrap(), UserId::parse("forgotten-1").unwrap());
        let payload =
            br#"{"userUuid":"bob","sessionId":"transfer","receipt":{"receiver":"alice","reason":"for alice"}}"#;
        let event: serde_json::Value = serde_json::from_slice(&renamed(payload, &alice, &pseudonym)).unwrap();
        let receipt = serde_json::json!({"receiver": "forgotten-1", "reason": "(removed)"});
        assert_eq!(event, serde_json::json!({"userUuid": "bob", "sessionId": "transfer", "receipt": receipt}));
    }
}
