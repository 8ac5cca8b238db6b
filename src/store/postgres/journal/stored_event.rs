//! A usage event as JSON, as dead letters contain it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::stored_receipt::StoredReceipt;
use crate::domain::{
    InvalidInput,
    ap::Ap,
    calendar::Period,
    grant::{GrantNumber, GrantPart},
    level::LevelCode,
    meter::MeterCode,
    model_name::ModelName,
    token_kinds::TokenKinds,
    usage::{Tokens, UsageEvent, UsageKind},
    user_id::{SessionId, UserId},
    window::{WindowCount, WindowKey, WindowUnit},
};

/// All data of an event, for correction by hand and for a replay.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredEvent {
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
    #[serde(default, skip_serializing_if = "is_chat")]
    meter: u8,
    #[serde(default)]
    model: String,
    kind: String,
    created_at: DateTime<Utc>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_chat(meter: &u8) -> bool {
    *meter == 0
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
    pub(super) fn of(event: &UsageEvent) -> Self {
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
            meter: event.meter.get(),
            model: ModelName::column(event.model.as_ref()).to_owned(),
            kind: event.kind.as_str().to_owned(),
            created_at: event.at,
        }
    }

    pub(super) fn event(self) -> Result<UsageEvent, InvalidInput> {
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
            meter: MeterCode::new(self.meter),
        })
    }
}
