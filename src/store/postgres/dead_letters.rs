//! `dead_letters`: what Postgres refused, whole.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    Postgres, PostgresError,
    flush_watermarks::{number, signed},
};
use crate::domain::{
    journal::{Content, Entry},
    usage::UsageEvent,
};

/// One refused event, or one stream entry that nobody can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Counts up.
    pub id: i64,
    /// The stream entry.
    pub entry: String,
    /// Whose charge, where that is known.
    pub user: Option<String>,
    /// How much, where that is known.
    pub ap: Option<i32>,
    /// Why it was refused.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// Where letters come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) partition: u16,
    pub(super) generation: u32,
    pub(super) now: DateTime<Utc>,
}

impl Origin {
    /// Keeps unreadable entries and refused events; returns how many were not kept before.
    pub(super) async fn keep(
        &self,
        connection: &mut PgConnection,
        entries: &[Entry],
        refused: &[(&UsageEvent, String)],
    ) -> Result<u64, PostgresError> {
        let mut kept = 0;
        for entry in entries {
            if let Content::Unreadable { bytes, reason } = &entry.content {
                kept += self.insert(connection, &entry.id.to_string(), None, bytes, reason).await?;
            }
        }
        for (event, reason) in refused {
            let entry = format!("{}-*", event.at.timestamp_millis());
            kept += self.insert(connection, &entry, Some(event), &payload(event), reason).await?;
        }
        Ok(kept)
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        entry: &str,
        event: Option<&UsageEvent>,
        payload: &[u8],
        reason: &str,
    ) -> Result<u64, PostgresError> {
        let done = sqlx::query!(
            "insert into dead_letters (partition, generation, entry_id, event, user_uuid, ap_used, payload, reason, created_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict do nothing",
            number(self.partition),
            signed(self.generation),
            entry,
            event.map(|event| event.id),
            event.map(|event| event.user.as_str()),
            event.map(|event| i32::try_from(event.ap.get()).unwrap_or(i32::MAX)),
            payload,
            reason,
            self.now,
        )
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Everything that the event says, for whoever mends it by hand.
fn payload(event: &UsageEvent) -> Vec<u8> {
    serde_json::json!({
        "uuid": event.id.to_string(),
        "userUuid": event.user.as_str(),
        "sessionId": event.session.as_str(),
        "levelCode": event.level.get(),
        "period": event.period.id(),
        "apUsed": event.ap.get(),
        "overage": event.overage.get(),
        "tokensUsed": event.tokens.get(),
        "kind": event.kind.as_str(),
        "createdAt": event.at.to_rfc3339(),
    })
    .to_string()
    .into_bytes()
}

impl Postgres {
    /// How many letters there are.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn dead_letter_count(&self) -> Result<u64, PostgresError> {
        let count =
            sqlx::query_scalar!(r#"select count(*) as "count!" from dead_letters"#).fetch_one(&self.pool).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The newest letters.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, PostgresError> {
        let letters = sqlx::query_as!(
            DeadLetter,
            "select id, entry_id as entry, user_uuid as user, ap_used as ap, reason, created_at as at
             from dead_letters
             order by id desc
             limit $1",
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(letters)
    }
}
