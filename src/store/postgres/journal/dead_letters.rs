//! `dead_letters`: complete copies of what Postgres refused.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    InvalidInput,
    ap::Ap,
    calendar::{Calendar, Period},
    grant::{GrantNumber, GrantPart},
    journal::{Content, Entry},
    level::{LevelCode, Levels},
    model_name::ModelName,
    token_kinds::TokenKinds,
    usage::{Tokens, UsageEvent, UsageKind},
    user_id::{SessionId, UserId},
    window::{WindowCount, WindowKey, WindowUnit},
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    integers::{integer, smallint},
    journal::{
        chat_usage_logs::{self, Mode},
        stored_receipt::StoredReceipt,
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
            "insert into dead_letters (partition, generation, entry_id, event, user_uuid, ap_used, payload, reason, created_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
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
        )
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

/// All data of an event, for correction by hand and for a replay.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredEvent {
    uuid: Uuid,
    user_uuid: String,
    session_id: String,
    level_code: u8,
    period: u32,
    ap_used: u32,
    overage: u32,
    tokens_used: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_kinds: Option<StoredTokenKinds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    windows: Vec<StoredWindow>,
    /// Number and AP of each part that a grant paid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grants: Vec<(u64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt: Option<StoredReceipt>,
    #[serde(default)]
    model: String,
    kind: String,
    created_at: DateTime<Utc>,
}

/// Kinds of tokens of a [`StoredEvent`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredTokenKinds {
    input: u32,
    cached_input: u32,
    output: u32,
    estimated: bool,
}

impl StoredTokenKinds {
    const fn of(kinds: TokenKinds) -> Self {
        let (input, cached_input, output) = (kinds.input(), kinds.cached_input(), kinds.output());
        Self { input, cached_input, output, estimated: kinds.is_estimated() }
    }

    fn tokens(&self) -> Result<Tokens, InvalidInput> {
        let kinds = TokenKinds::new(self.input, self.cached_input, self.output)?;
        Ok(Tokens::of_kinds(if self.estimated { kinds.estimated() } else { kinds }))
    }
}

/// What a [`StoredEvent`] counted in a window.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredWindow {
    minutes: u16,
    unit: u8,
    start: DateTime<Utc>,
    counted: u32,
}

impl StoredWindow {
    const fn of(count: &WindowCount) -> Self {
        let (minutes, unit) = (count.key.minutes(), count.key.unit.code());
        Self { minutes, unit, start: count.start, counted: count.counted }
    }

    fn count(&self) -> Result<WindowCount, InvalidInput> {
        let no_unit = || InvalidInput { field: "windows", rule: "unit must be 1 or 2".into() };
        let key = WindowKey::new(self.minutes, WindowUnit::from_code(self.unit).ok_or_else(no_unit)?)?;
        Ok(WindowCount { key, start: self.start, counted: self.counted })
    }
}

impl StoredEvent {
    fn of(event: &UsageEvent) -> Self {
        Self {
            uuid: event.id,
            user_uuid: event.user.to_string(),
            session_id: event.session.as_str().to_owned(),
            level_code: event.level.get(),
            period: event.period.id(),
            ap_used: event.ap.get(),
            overage: event.overage.get(),
            tokens_used: event.tokens.get().into(),
            token_kinds: event.tokens.kinds().map(StoredTokenKinds::of),
            begun_at: event.begun_at,
            windows: event.windows.iter().map(StoredWindow::of).collect(),
            grants: event.grants.iter().map(|part| (part.number.get(), part.ap.get())).collect(),
            receipt: event.receipt.as_deref().map(StoredReceipt::of),
            model: ModelName::column(event.model.as_ref()).to_owned(),
            kind: event.kind.as_str().to_owned(),
            created_at: event.at,
        }
    }

    fn event(self) -> Result<UsageEvent, InvalidInput> {
        let no_code = |field| InvalidInput { field, rule: "is not a known code".into() };
        let part = |(number, ap)| {
            let number = GrantNumber::new(number).ok_or_else(|| no_code("grants"))?;
            Ok::<_, InvalidInput>(GrantPart { number, ap: Ap::new(ap) })
        };
        Ok(UsageEvent {
            id: self.uuid,
            user: UserId::parse(&self.user_uuid)?,
            session: SessionId::parse(&self.session_id)?,
            level: LevelCode::new(self.level_code).ok_or_else(|| no_code("levelCode"))?,
            period: Period::from_id(self.period)?,
            ap: Ap::new(self.ap_used),
            overage: Ap::new(self.overage),
            tokens: self.token_kinds.map_or_else(|| Tokens::new(self.tokens_used), |kinds| kinds.tokens())?,
            model: ModelName::from_column(&self.model)?,
            kind: UsageKind::parse(&self.kind).ok_or_else(|| no_code("kind"))?,
            at: self.created_at,
            begun_at: self.begun_at,
            windows: self.windows.iter().map(StoredWindow::count).collect::<Result<_, _>>()?,
            grants: self.grants.into_iter().map(part).collect::<Result<_, _>>()?,
            receipt: self.receipt.map(|receipt| receipt.receipt().map(Box::new)).transpose()?,
        })
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

    /// Returns a user's refused AP, and whether the partition has unreadable entries, which may belong to any user.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn letters_about(&self, user: &UserId, partition: u16) -> Result<(u64, bool), PostgresError> {
        let row = sqlx::query!(
            r#"select coalesce(sum(ap_used), 0) as "ap!",
                    coalesce(bool_or(event is null), false) as "unreadable!"
             from dead_letters
             where user_uuid = $1
                or (partition = $2 and event is null)"#,
            user.as_str(),
            smallint(partition),
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
    use super::*;

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
