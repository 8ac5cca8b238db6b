//! `chat_usage_logs`: one row per charge, written by binary `COPY`.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    ap::Ap, calendar::Period, grant::GrantPart, level::Levels, meter::MeterCode, model_name::ModelName,
    token_kinds::TokenKinds, usage::UsageEvent, user_id::UserId,
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    error::is_about_data,
    integers::{integer, meter_of},
    journal::logged_windows,
    users::chat_quotas::parse_period,
};

/// A charge in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedUsage {
    /// Id of the charge.
    pub event: Uuid,
    /// AP charged.
    pub ap: Ap,
    /// AP that the quota did not cover.
    pub overage: Ap,
    /// Period that was charged.
    pub period: Period,
    /// Whether the hold had expired.
    pub late: bool,
    /// Conversation.
    pub session: String,
    /// Tokens that the model counted.
    pub tokens: i32,
    /// Model that wrote the answer.
    pub model: Option<ModelName>,
    /// The meter that counted it.
    pub meter: MeterCode,
}

/// The columns of a row that describe its charge.
pub(in crate::store::postgres) struct LoggedRow {
    pub(in crate::store::postgres) uuid: Uuid,
    pub(in crate::store::postgres) ap_used: i32,
    pub(in crate::store::postgres) overage: i32,
    pub(in crate::store::postgres) period: i32,
    pub(in crate::store::postgres) kind: String,
    pub(in crate::store::postgres) session_id: String,
    pub(in crate::store::postgres) tokens_used: i32,
    pub(in crate::store::postgres) model: String,
    pub(in crate::store::postgres) meter: i16,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::postgres) enum Mode {
    /// The watermark guarantees that the rows are new. An existing row is an error.
    New,
    /// Some rows may exist (in an opening). Those are skipped.
    IfAbsent,
}

/// Result of writing a list of events.
#[derive(Debug, Default)]
pub(in crate::store::postgres) struct Written<'a> {
    /// Events that were added to the log.
    pub(in crate::store::postgres) new: Vec<&'a UsageEvent>,
    /// Events that Postgres refused, with the reasons.
    pub(in crate::store::postgres) refused: Vec<(&'a UsageEvent, String)>,
}

impl Postgres {
    /// Returns the log row of a user's event, if there is one between two times.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn find_event(
        &self,
        event: Uuid,
        user: &UserId,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Option<LoggedUsage>, PostgresError> {
        let row = sqlx::query_as!(
            LoggedRow,
            "select uuid, ap_used, overage, period, kind, session_id, tokens_used, model, meter
             from chat_usage_logs
             where uuid = $1
               and user_uuid = $2
               and created_at between $3 and $4",
            event,
            user.as_str(),
            from,
            to,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(LoggedRow::read).transpose()
    }
}

impl LoggedRow {
    pub(in crate::store::postgres) fn read(self) -> Result<LoggedUsage, PostgresError> {
        let wrong = |column| PostgresError::inconsistent("chat_usage_logs", column, self.uuid);
        Ok(LoggedUsage {
            event: self.uuid,
            ap: u32::try_from(self.ap_used).map(Ap::new).map_err(|_| wrong("ap_used"))?,
            overage: u32::try_from(self.overage).map(Ap::new).map_err(|_| wrong("overage"))?,
            period: parse_period(self.period).ok_or_else(|| wrong("period"))?,
            late: self.kind == crate::domain::usage::UsageKind::LateCommit.as_str(),
            model: ModelName::from_column(&self.model).map_err(|_| wrong("model"))?,
            meter: meter_of(self.meter).ok_or_else(|| wrong("meter"))?,
            session: self.session_id,
            tokens: self.tokens_used,
        })
    }
}

/// Writes events to the log. If Postgres refuses some, the others are still written: the list is halved until each
/// refused event is alone.
pub(in crate::store::postgres) async fn write<'a>(
    transaction: &mut Transaction<'_>,
    events: &[&'a UsageEvent],
    levels: &Levels,
    mode: Mode,
) -> Result<Written<'a>, PostgresError> {
    let mut written = Written::default();
    let mut lists = vec![events];
    while let Some(list) = lists.pop() {
        if list.is_empty() {
            continue;
        }
        let mut savepoint = transaction.savepoint().await?;
        let outcome = match mode {
            Mode::New => copy(&mut savepoint, list, levels).await.map(|()| list.to_vec()),
            Mode::IfAbsent => insert_absent(&mut savepoint, list, levels).await,
        };
        match outcome {
            Ok(new) => {
                savepoint.commit().await?;
                written.new.extend(new);
            }
            Err(error) if is_about_data(&error) => {
                savepoint.rollback().await?;
                if let [event] = list {
                    written.refused.push((event, error.to_string()));
                } else {
                    // The first half is on top, which keeps the order.
                    let (first, second) = list.split_at(list.len() / 2);
                    lists.extend([second, first]);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

async fn copy(connection: &mut Transaction<'_>, events: &[&UsageEvent], levels: &Levels) -> Result<(), sqlx::Error> {
    let statement =
        "copy chat_usage_logs (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, model, created_at,
                               input_tokens, cached_input_tokens, output_tokens, tokens_estimated,
                               plan_ap, grant_numbers, grant_aps, windows, meter)
         from stdin (format binary)";
    connection.copy_in(statement, encode(events, levels)).await
}

/// Skips events already in the log, even at another time: two primaries may both have executed a repeated request. The
/// search covers two days before and after: longer than a request may be repeated, and limited to the log's partitions
/// of those days (decision 0015).
async fn insert_absent<'a>(
    connection: &mut Transaction<'_>,
    events: &[&'a UsageEvent],
    levels: &Levels,
) -> Result<Vec<&'a UsageEvent>, sqlx::Error> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let users: Vec<&str> = events.iter().map(|event| event.user.as_str()).collect();
    let sessions: Vec<&str> = events.iter().map(|event| event.session.as_str()).collect();
    let level_names: Vec<&str> = events.iter().map(|event| level_name(event, levels)).collect();
    let periods: Vec<i32> = events.iter().map(|event| event.period.into()).collect();
    let tokens: Vec<i32> = events.iter().map(|event| event.tokens.into()).collect();
    let aps: Vec<i32> = events.iter().map(|event| integer(event.ap.get())).collect();
    let overages: Vec<i32> = events.iter().map(|event| integer(event.overage.get())).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let models: Vec<&str> = events.iter().map(|event| ModelName::column(event.model.as_ref())).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|event| event.at).collect();
    let (inputs, cached_inputs, outputs, estimated) = kinds_columns(events);
    let plan_aps: Vec<Option<i32>> = events.iter().map(|event| plan_ap(event)).collect();
    // Lists of different lengths cannot be in one array, so each is a text.
    let numbers: Vec<Option<String>> =
        events.iter().map(|event| list(event, |part| part.number.get().to_string())).collect();
    let part_aps: Vec<Option<String>> = events.iter().map(|event| list(event, |part| part.ap.to_string())).collect();
    let windows: Vec<Option<Vec<u8>>> = events.iter().map(|event| logged_windows::column(&event.windows)).collect();
    let meters: Vec<i16> = events.iter().map(|event| event.meter.into()).collect();
    let inserted = sqlx::query_scalar!(
        "insert into chat_usage_logs
             (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, model, created_at,
              input_tokens, cached_input_tokens, output_tokens, tokens_estimated, plan_ap, grant_numbers, grant_aps, windows, meter)
         select distinct on (new.uuid) uuid, user_uuid, session_id, level, period, tokens, ap, overage, kind, model, at,
                input, cached_input, output, estimated, plan_ap, numbers::bigint[], aps::integer[], windows, meter
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[], $8::int[], $9::text[], $10::text[], $11::timestamptz[],
                     $12::int[], $13::int[], $14::int[], $15::bool[], $16::int[], $17::text[], $18::text[], $19::bytea[], $20::smallint[])
              with ordinality as new (uuid, user_uuid, session_id, level, period, tokens, ap, overage, kind, model, at,
                                      input, cached_input, output, estimated, plan_ap, numbers, aps, windows, meter, place)
         where not exists (
             select
             from chat_usage_logs as logged
             where logged.uuid = new.uuid
               and logged.created_at between new.at - interval '2 days' and new.at + interval '2 days'
         )
         order by new.uuid, new.place
         on conflict (uuid, created_at) do nothing
         returning uuid",
        &ids,
        &users as &[&str],
        &sessions as &[&str],
        &level_names as &[&str],
        &periods,
        &tokens,
        &aps,
        &overages,
        &kinds as &[&str],
        &models as &[&str],
        &times,
        &inputs as &[Option<i32>],
        &cached_inputs as &[Option<i32>],
        &outputs as &[Option<i32>],
        &estimated,
        &plan_aps as &[Option<i32>],
        &numbers as &[Option<String>],
        &part_aps as &[Option<String>],
        &windows as &[Option<Vec<u8>>],
        &meters,
    )
    .fetch_all(connection)
    .await?;
    let mut inserted: std::collections::HashSet<Uuid> = inserted.into_iter().collect();
    // An id that occurs twice in the list counts once.
    Ok(events.iter().copied().filter(|event| inserted.remove(&event.id)).collect())
}

/// Input, cached input and output tokens, and whether they are estimated, of each event.
type KindsColumns = (Vec<Option<i32>>, Vec<Option<i32>>, Vec<Option<i32>>, Vec<bool>);

fn kinds_columns(events: &[&UsageEvent]) -> KindsColumns {
    let kinds = || events.iter().map(|event| event.tokens.kinds());
    let column = |count: fn(TokenKinds) -> u32| kinds().map(|kinds| kinds.map(|kinds| integer(count(kinds)))).collect();
    let estimated = kinds().map(|kinds| kinds.is_some_and(TokenKinds::is_estimated)).collect();
    (column(TokenKinds::input), column(TokenKinds::cached_input), column(TokenKinds::output), estimated)
}

/// Returns the level's name, or "unknown" for an invalid code. Levels are never deleted, and read again for a new code.
pub(in crate::store::postgres) fn level_name<'a>(event: &UsageEvent, levels: &'a Levels) -> &'a str {
    levels.coded(event.level).map_or("unknown", |level| level.name.as_str())
}

/// Encodes rows for `COPY`: <https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.4>.
fn encode(events: &[&UsageEvent], levels: &Levels) -> Vec<u8> {
    const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
    const COLUMNS: i16 = 20;
    const TRAILER: i16 = -1;
    /// Length of a field that is null.
    const NULL: i32 = -1;
    let mut to = Vec::with_capacity(32 + events.len() * 200);
    to.extend_from_slice(SIGNATURE);
    to.extend_from_slice(&[0; 8]); // no flags, no header extension
    for event in events {
        to.extend_from_slice(&COLUMNS.to_be_bytes());
        put(&mut to, event.id.as_bytes());
        put(&mut to, event.user.as_str().as_bytes());
        put(&mut to, event.session.as_str().as_bytes());
        put(&mut to, level_name(event, levels).as_bytes());
        put(&mut to, &i32::from(event.period).to_be_bytes());
        put(&mut to, &i32::from(event.tokens).to_be_bytes());
        put(&mut to, &integer(event.ap.get()).to_be_bytes());
        put(&mut to, &integer(event.overage.get()).to_be_bytes());
        put(&mut to, event.kind.as_str().as_bytes());
        put(&mut to, ModelName::column(event.model.as_ref()).as_bytes());
        put(&mut to, &(event.at.timestamp_micros() - MICROS_1970_TO_2000).to_be_bytes());
        let kinds = event.tokens.kinds();
        for count in [TokenKinds::input, TokenKinds::cached_input, TokenKinds::output] {
            match kinds {
                Some(kinds) => put(&mut to, &integer(count(kinds)).to_be_bytes()),
                None => to.extend_from_slice(&NULL.to_be_bytes()),
            }
        }
        put(&mut to, &[kinds.is_some_and(TokenKinds::is_estimated).into()]);
        put_grants(&mut to, event);
        match logged_windows::column(&event.windows) {
            Some(windows) => put(&mut to, &windows),
            None => to.extend_from_slice(&NULL.to_be_bytes()),
        }
        put(&mut to, &i16::from(event.meter).to_be_bytes());
    }
    to.extend_from_slice(&TRAILER.to_be_bytes());
    to
}

/// Length of a field without a value.
const NULL: i32 = -1;
/// Postgres counts microseconds from 2000-01-01.
pub(super) const MICROS_1970_TO_2000: i64 = 946_684_800_000_000;

fn put(to: &mut Vec<u8>, field: &[u8]) {
    to.extend_from_slice(&i32::try_from(field.len()).unwrap_or(i32::MAX).to_be_bytes());
    to.extend_from_slice(field);
}

/// What the plan paid, the numbers of the grants that paid the rest, and what each paid. All are null for a message
/// that the plan paid for.
fn put_grants(to: &mut Vec<u8>, event: &UsageEvent) {
    const INT8: i32 = 20;
    const INT4: i32 = 23;
    let Some(plan_ap) = plan_ap(event) else {
        (0..3).for_each(|_| to.extend_from_slice(&NULL.to_be_bytes()));
        return;
    };
    put(to, &plan_ap.to_be_bytes());
    put_array(to, INT8, event.grants.iter().map(|part| part.number.get().cast_signed().to_be_bytes()));
    put_array(to, INT4, event.grants.iter().map(|part| integer(part.ap.get()).to_be_bytes()));
}

/// A list without nulls, in Postgres' binary format: the number of dimensions, whether there are nulls, the type, the
/// length, the first index, then the elements.
fn put_array<const N: usize>(to: &mut Vec<u8>, element_type: i32, elements: impl ExactSizeIterator<Item = [u8; N]>) {
    let length = i32::try_from(elements.len()).unwrap_or(i32::MAX);
    let mut array = Vec::with_capacity(20 + elements.len() * (4 + N));
    for number in [1, 0, element_type, length, 1] {
        array.extend_from_slice(&number.to_be_bytes());
    }
    elements.for_each(|element| put(&mut array, &element));
    put(to, &array);
}

/// What the plan paid of a message for which grants paid; `None` if there are none.
fn plan_ap(event: &UsageEvent) -> Option<i32> {
    (!event.grants.is_empty()).then(|| integer(event.plan_ap().get()))
}

/// One field of each part as the text of an array; `None` without parts.
fn list(event: &UsageEvent, field: impl Fn(&GrantPart) -> String) -> Option<String> {
    let fields: Vec<String> = event.grants.iter().map(field).collect();
    (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(",")))
}
