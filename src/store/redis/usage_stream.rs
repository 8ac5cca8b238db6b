//! Reads usage streams: entries and their events. Twin: `lua/operation/journal.lua`.

use redis::Value;
use uuid::Uuid;

use super::{
    connection::Redis,
    error::RedisError,
    event_blocks::{self, EXTENDED, EventBlocks},
    keys,
    packed::Reader,
};
use crate::domain::{
    ap::Ap,
    calendar::Period,
    clock::instant,
    journal::{Content, Entry, StreamId},
    level::LevelCode,
    model_name::ModelName,
    partition::Partition,
    usage::{Tokens, UsageEvent, UsageKind},
    user_id::{SessionId, UserId},
};

/// First byte of an entry. The genesis entry is empty.
const FORMAT: u8 = 2;
/// Older format, whose events name no model.
const FORMAT_WITHOUT_MODEL: u8 = 1;
/// Format of an entry with an extended event.
const FORMAT_EXTENDED: u8 = 3;
/// Formats from here on belong to no version, so text and arbitrary bytes are rarely mistaken for a newer format.
const FORMATS_END: u8 = 32;
/// Formats that this gate reads: up to this one.
pub(super) const READS_FORMATS_TO: u8 = FORMAT_EXTENDED;

/// A stream entry, as stored in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawEntry {
    pub(super) id: StreamId,
    pub(super) payload: Vec<u8>,
}

/// Parts of a stream that Redis measures to estimate the whole.
const MEMORY_SAMPLES: u32 = 8;
/// Assumed memory of an entry where the gate's user may not ask for it. Twin: `lua/operation/journal.lua`.
const ENTRY_BYTES: u64 = 4096;

/// Size of a usage stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSize {
    /// Number of entries.
    pub entries: u64,
    /// Memory, as Redis estimates it.
    pub bytes: u64,
}

impl Redis {
    /// Returns up to `count` entries of a usage stream, starting with `from`.
    ///
    /// # Errors
    /// If Redis does not answer. Nothing is changed.
    pub async fn read_stream(
        &self,
        partition: Partition,
        generation: u32,
        from: StreamId,
        count: usize,
    ) -> Result<Vec<Entry>, RedisError> {
        let entries = self.read_raw(&keys::stream(partition, generation), &from.to_string(), count).await?;
        Ok(entries.into_iter().map(|entry| entry.decode(self.reads_formats_to)).collect())
    }

    /// The number of entries of a usage stream, including the anchor.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn stream_length(&self, partition: Partition, generation: u32) -> Result<u64, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("XLEN");
        command.arg(keys::stream(partition, generation));
        command.query_async(&mut connection).await.map_err(RedisError::not_executed)
    }

    /// The size of a usage stream, including the anchor.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn stream_size(&self, partition: Partition, generation: u32) -> Result<StreamSize, RedisError> {
        let entries = self.stream_length(partition, generation).await?;
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("MEMORY");
        command.arg("USAGE").arg(keys::stream(partition, generation)).arg("SAMPLES").arg(MEMORY_SAMPLES);
        let bytes = match command.query_async::<Option<u64>>(&mut connection).await {
            Ok(bytes) => bytes.unwrap_or_default(),
            // An account of an older users.acl. The script makes the same assumption.
            Err(error) if error.code() == Some("NOPERM") => entries * ENTRY_BYTES,
            Err(error) => return Err(RedisError::not_executed(error)),
        };
        Ok(StreamSize { entries, bytes })
    }

    /// Reads entries from `start`: an id (inclusive), or `(id` (exclusive).
    pub(super) async fn read_raw(&self, key: &str, start: &str, count: usize) -> Result<Vec<RawEntry>, RedisError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("XRANGE");
        command.arg(key).arg(start).arg("+").arg("COUNT").arg(count);
        let reply: Value = command.query_async(&mut connection).await.map_err(RedisError::not_executed)?;
        parse_range(reply).ok_or_else(|| RedisError::NotExecuted(format!("{key} is not a usage stream")))
    }
}

/// Decodes the payload of an entry.
#[must_use]
pub fn decode_entry(payload: Vec<u8>) -> Content {
    decode(payload, READS_FORMATS_TO)
}

fn decode(payload: Vec<u8>, reads_formats_to: u8) -> Content {
    // Of a newer format nothing else is known, not even the header.
    if let Some(&format) = payload.first()
        && (reads_formats_to + 1..FORMATS_END).contains(&format)
    {
        return Content::Newer { format };
    }
    match decode_payload(&payload) {
        Ok(content) => content,
        Err(reason) => Content::Unreadable { bytes: payload, reason },
    }
}

/// Decodes the reply to `XRANGE`.
pub(super) fn entries(reply: Value, reads_formats_to: u8) -> Option<Vec<Entry>> {
    Some(parse_range(reply)?.into_iter().map(|entry| entry.decode(reads_formats_to)).collect())
}

/// `[[id, [field, payload]], …]`
fn parse_range(reply: Value) -> Option<Vec<RawEntry>> {
    let Value::Array(entries) = reply else { return None };
    entries
        .into_iter()
        .map(|entry| {
            let Value::Array(parts) = entry else { return None };
            let [Value::BulkString(id), Value::Array(fields)] = <[Value; 2]>::try_from(parts).ok()? else {
                return None;
            };
            let id = std::str::from_utf8(&id).ok()?.parse().ok()?;
            // An entry that no gate wrote may have any fields. It is kept as unreadable.
            let payload = match fields.into_iter().nth(1) {
                Some(Value::BulkString(payload)) => payload,
                _ => Vec::new(),
            };
            Some(RawEntry { id, payload })
        })
        .collect()
}

impl RawEntry {
    pub(super) fn decode(self, reads_formats_to: u8) -> Entry {
        Entry { id: self.id, content: decode(self.payload, reads_formats_to) }
    }
}

fn decode_payload(payload: &[u8]) -> Result<Content, String> {
    if payload.is_empty() {
        return Ok(Content::Genesis);
    }
    let mut reader = Reader::new(payload);
    let header = |reader: &mut Reader<'_>| Some((reader.u8()?, reader.u48()?, reader.uuid()?));
    let (format, at_ms, last_event) = header(&mut reader).ok_or("the entry ends within its header")?;
    if !matches!(format, FORMAT | FORMAT_WITHOUT_MODEL | FORMAT_EXTENDED) {
        return Err(format!("the entry has format {format}; this gate reads formats up to {READS_FORMATS_TO}"));
    }
    let mut events = Vec::new();
    while !reader.is_empty() {
        let number = events.len();
        events.push(decode_event(&mut reader, format, at_ms).ok_or_else(|| format!("event {number} is malformed"))?);
    }
    if events.last().map(|event: &UsageEvent| event.id) != Some(last_event) {
        return Err("the last event of the entry is not the one in its header".into());
    }
    Ok(Content::Events(events))
}

fn decode_event(reader: &mut Reader<'_>, format: u8, at_ms: u64) -> Option<UsageEvent> {
    let code = reader.u8()?;
    let is_extended = format == FORMAT_EXTENDED && code & EXTENDED > 0;
    let kind = UsageKind::from_code(if is_extended { code - EXTENDED } else { code })?;
    let level = LevelCode::new(reader.u8()?)?;
    let (period, _) = Period::from_code(reader.u24()?).ok()?;
    let (ap, overage) = (Ap::new(reader.u32()?), Ap::new(reader.u32()?));
    let id: Uuid = reader.uuid()?;
    let tokens = Tokens::new(reader.u32()?.into()).ok()?;
    let user = UserId::parse(&reader.id()?).ok()?;
    let session = SessionId::parse(&reader.id()?).ok()?;
    let has_model = format != FORMAT_WITHOUT_MODEL;
    let model = if has_model { ModelName::from_column(reader.text()?).ok()? } else { None };
    let mut blocks = if is_extended { event_blocks::decode(reader)? } else { EventBlocks::default() };
    let receipt = blocks.receipt(kind == UsageKind::Transfer)?;
    let tokens = match blocks.token_kinds.map(Tokens::of_kinds) {
        Some(of_kinds) if of_kinds.get() != tokens.get() => return None,
        Some(of_kinds) => of_kinds,
        None => tokens,
    };
    // What grants have not paid, the plan has.
    let grants = match blocks.parts {
        Some((plan, parts)) => {
            // A transfer charges nothing.
            let charged = if receipt.is_some() { &[] } else { parts.as_slice() };
            let sum = charged.iter().try_fold(plan.get(), |sum, part| sum.checked_add(part.ap.get()))?;
            if sum != ap.get() {
                return None;
            }
            parts
        }
        None => Vec::new(),
    };
    let at = instant(i64::try_from(at_ms).ok()?);
    Some(UsageEvent {
        id,
        user,
        session,
        level,
        period,
        ap,
        overage,
        tokens,
        model,
        kind,
        at,
        begun_at: blocks.begun_at,
        windows: blocks.windows.unwrap_or_default(),
        grants,
        meter: blocks.meter.unwrap_or_default(),
        receipt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::token_kinds::TokenKinds;

    /// An entry of one event of bob, whose tokens are 11, then `rest`.
    fn entry(format: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![format, 0, 0, 0, 0, 0, 9];
        bytes.extend([0xaa; 16]);
        bytes.extend([kind, 1, 3, 23, 115, 0, 0, 0, 5, 0, 0, 0, 0]);
        bytes.extend([0xaa; 16]);
        bytes.extend([0, 0, 0, 11, 3, b'b', b'o', b'b', 1, b's']);
        bytes.extend_from_slice(rest);
        bytes
    }

    fn tokens_and_model(payload: Vec<u8>) -> Option<(Tokens, Option<String>)> {
        let Content::Events(events) = decode_entry(payload) else { return None };
        let [event] = &events[..] else { return None };
        assert_eq!((event.user.as_str(), event.ap, event.period.id()), ("bob", Ap::new(5), 202_611));
        Some((event.tokens, event.model.as_ref().map(ToString::to_string)))
    }

    #[test]
    fn entries_of_all_three_formats_are_read() {
        let (plain, model) = (Tokens::new(11).unwrap(), Some("m".to_owned()));
        let kinds = Tokens::of_kinds(TokenKinds::new(7, 3, 4).unwrap());
        let block = [1, b'm', 1, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0];
        for (payload, expected) in [
            (entry(1, 1, &[]), (plain, None)),
            (entry(2, 2, &[1, b'm']), (plain, model.clone())),
            (entry(2, 3, &[0]), (plain, None)),
            (entry(3, 1, &[1, b'm']), (plain, model.clone())),
            (entry(3, 129, &[1, b'm', 0]), (plain, model.clone())),
            (entry(3, 130, &block), (kinds, model)),
        ] {
            assert_eq!(tokens_and_model(payload.clone()), Some(expected), "{payload:?}");
        }
    }

    #[test]
    fn extended_events_are_read_in_format_3_only_and_as_a_whole() {
        let block = [1, b'm', 1, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0];
        for payload in [
            entry(2, 129, &block),
            entry(3, 1, &block),
            entry(3, 129, &block[..16]),
            entry(3, 129, &[1, b'm', 1, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0]),
        ] {
            assert!(matches!(decode_entry(payload.clone()), Content::Unreadable { .. }), "{payload:?}");
        }
        assert_eq!(decode(entry(3, 129, &block), 2), Content::Newer { format: 3 }, "as the previous version reads it");
    }
}
