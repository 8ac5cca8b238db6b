//! `dead_letters`: complete copies of what Postgres refused.

use chrono::{DateTime, Utc};

use crate::domain::{
    calendar::Calendar,
    journal::{Content, Entry},
    level::Levels,
    meter::MeterCode,
    usage::UsageEvent,
    user_id::UserId,
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    integers::{integer, smallint},
    journal::{
        chat_usage_logs::{self, Mode},
        stored_event::StoredEvent,
        totals, usage_days,
    },
    outbox::dual_writes,
};

/// A refused event or an unreadable stream entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Ascending number.
    pub id: i64,
    /// Id of the stream entry.
    pub entry: String,
    /// User id, if known.
    pub user: Option<String>,
    /// AP of the charge, if known.
    pub ap: Option<i32>,
    /// Reason for the refusal.
    pub reason: String,
    /// Time of the refusal.
    pub at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy)]
pub(in crate::store::postgres) struct Origin {
    pub(in crate::store::postgres) partition: u16,
    pub(in crate::store::postgres) generation: u32,
    pub(in crate::store::postgres) now: DateTime<Utc>,
}

impl Origin {
    /// Stores unreadable entries and refused events. Returns how many were not stored before.
    pub(in crate::store::postgres) async fn keep(
        &self,
        connection: &mut Transaction<'_>,
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
        connection: &mut Transaction<'_>,
        entry: &str,
        event: Option<&UsageEvent>,
        payload: &[u8],
        reason: &str,
    ) -> Result<u64, PostgresError> {
        let done = sqlx::query!(
            "insert into dead_letters (partition, generation, entry_id, event, user_uuid, ap_used, payload, reason, created_at, meter)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict do nothing",
            smallint(self.partition),
            integer(self.generation),
            entry,
            event.map(|event| event.id),
            event.map(|event| event.user.as_str()),
            event.map(|event| integer(event.ap.get())),
            payload,
            reason,
            self.now,
            event.map_or(0, |event| i16::from(event.meter)),
        )
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

fn payload(event: &UsageEvent) -> Vec<u8> {
    serde_json::to_vec(&StoredEvent::of(event)).unwrap_or_default()
}

/// Content of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterContent {
    /// An event that Postgres refused.
    Event(UsageEvent),
    /// The payload of an unreadable stream entry.
    Entry(Vec<u8>),
    /// An event made invalid by a manual edit, with the reason.
    Unreadable(String),
    /// Another replay has removed the letter.
    Gone,
}

/// Result of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// The letter's events are counted, and the letter is deleted.
    Done,
    /// Postgres refused an event again; the letter stays.
    Refused(String),
}

impl Postgres {
    /// Returns the number of letters.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn dead_letter_count(&self) -> Result<u64, PostgresError> {
        let count =
            sqlx::query_scalar!(r#"select count(*) as "count!" from dead_letters"#).fetch_one(&self.pool).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Returns the newest letters.
    ///
    /// # Errors
    /// If Postgres is unavailable.
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

    /// Returns a user's refused AP of a meter, and whether the partition has unreadable entries, which may belong to
    /// any user.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn letters_about(
        &self,
        (user, meter): (&UserId, MeterCode),
        partition: u16,
    ) -> Result<(u64, bool), PostgresError> {
        let row = sqlx::query!(
            r#"select coalesce(sum(ap_used) filter (where meter = $3), 0) as "ap!",
                    coalesce(bool_or(event is null), false) as "unreadable!"
             from dead_letters
             where user_uuid = $1
                or (partition = $2 and event is null)"#,
            user.as_str(),
            smallint(partition),
            i16::from(meter),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((u64::try_from(row.ap).unwrap_or_default(), row.unreadable))
    }

    /// Returns the content of a letter.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn letter_content(&self, id: i64) -> Result<LetterContent, PostgresError> {
        let row = sqlx::query!("select event, payload from dead_letters where id = $1", id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(LetterContent::Gone) };
        if row.event.is_none() {
            return Ok(LetterContent::Entry(row.payload));
        }
        let stored: Result<StoredEvent, _> = serde_json::from_slice(&row.payload);
        Ok(match stored.map(StoredEvent::event) {
            Ok(Ok(event)) => LetterContent::Event(event),
            Ok(Err(error)) => LetterContent::Unreadable(error.to_string()),
            Err(error) => LetterContent::Unreadable(error.to_string()),
        })
    }

    /// Counts the events of a letter that are not counted yet and deletes the letter, in one transaction.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed.
    pub async fn replay(
        &self,
        id: i64,
        events: &[UsageEvent],
        levels: &Levels,
        calendar: Calendar,
        now: DateTime<Utc>,
    ) -> Result<Replay, PostgresError> {
        let receivers = events.iter().filter_map(|event| event.receipt.as_ref()).map(|receipt| &receipt.receiver);
        if !self.forgotten_of(events.iter().map(|event| &event.user).chain(receivers)).await?.is_empty() {
            return Ok(Replay::Refused("its user was forgotten: delete the letter".to_owned()));
        }
        let mut transaction = self.pool.begin().await?;
        let deleted = sqlx::query_scalar!("delete from dead_letters where id = $1 returning partition", id);
        let Some(partition) = deleted.fetch_optional(&mut transaction).await? else { return Ok(Replay::Done) };
        let events: Vec<&UsageEvent> = events.iter().collect();
        let written = chat_usage_logs::write(&mut transaction, &events, levels, Mode::IfAbsent).await?;
        if let Some((_, reason)) = written.refused.into_iter().next() {
            transaction.rollback().await?;
            return Ok(Replay::Refused(reason));
        }
        totals::add(&mut transaction, &written.new, levels, calendar, now).await?;
        if self.dual_write {
            dual_writes::enqueue(&mut transaction, &written.new).await?;
        }
        usage_days::add(&mut transaction, partition, &written.new, levels, calendar).await?;
        transaction.commit().await?;
        Ok(Replay::Done)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        ap::Ap,
        calendar::Period,
        level::LevelCode,
        token_kinds::TokenKinds,
        usage::{Tokens, UsageKind},
        user_id::SessionId,
    };

    fn event(tokens: Tokens) -> UsageEvent {
        UsageEvent {
            id: Uuid::from_u128(7),
            user: UserId::parse("alice").unwrap(),
            session: SessionId::parse("s").unwrap(),
            level: LevelCode::new(1).unwrap(),
            period: Period::from_id(202_611).unwrap(),
            ap: Ap::new(5),
            overage: Ap::ZERO,
            tokens,
            model: None,
            kind: UsageKind::Commit,
            at: DateTime::UNIX_EPOCH,
            begun_at: None,
            grants: Vec::new(),
            receipt: None,
            windows: Vec::new(),
            meter: MeterCode::CHAT,
        }
    }

    #[test]
    fn a_letter_has_all_of_its_event_and_kinds_of_tokens_only_if_they_are_known() {
        let kinds = TokenKinds::new(7, 3, 4).unwrap();
        for (tokens, has_kinds) in [
            (Tokens::new(11).unwrap(), false),
            (Tokens::of_kinds(kinds), true),
            (Tokens::of_kinds(kinds.estimated()), true),
        ] {
            let payload = payload(&event(tokens));
            assert_eq!(String::from_utf8_lossy(&payload).contains("tokenKinds"), has_kinds);
            let stored: StoredEvent = serde_json::from_slice(&payload).unwrap();
            assert_eq!(stored.event().unwrap(), event(tokens));
        }
    }
}
