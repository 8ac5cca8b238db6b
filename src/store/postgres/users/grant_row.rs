//! A row of `grants`, and the macro that queries it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{author::Author, meter::MeterCode, new_grant::NewGrant, user_id::UserId};
use crate::store::postgres::{
    PostgresError,
    integers::{as_count, meter_of},
};

/// A grant and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// Id.
    pub id: Uuid,
    /// The user who has it.
    pub user: UserId,
    /// The meter whose messages it pays.
    pub meter: MeterCode,
    /// Number in the journal; `None` until a transferred grant has one.
    pub number: Option<u64>,
    /// AP that it had at first.
    pub granted: u64,
    /// AP charged and flushed.
    pub charged: u64,
    /// AP transferred to other users and flushed.
    pub transferred: u64,
    /// When it expires; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Order in which it pays: a lower number first.
    pub priority: u8,
    /// What it comes from.
    pub source: String,
    /// Reason as text; empty if a program gave none.
    pub reason: String,
    /// The caller's id of it; `None` for transferred grants.
    pub external_id: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it: the id of the token, or a part of the gate.
    pub created_by: String,
    /// When it was voided.
    pub voided_at: Option<DateTime<Utc>>,
    /// Why it was voided.
    pub void_reason: Option<String>,
    /// The user who transferred it.
    pub received_from: Option<UserId>,
}

pub(super) struct RawGrant {
    pub(super) id: Uuid,
    pub(super) user_uuid: String,
    pub(super) meter: i16,
    pub(super) number: Option<i64>,
    pub(super) granted: i64,
    pub(super) charged: i64,
    pub(super) transferred: i64,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) priority: i16,
    pub(super) source: String,
    pub(super) reason: String,
    pub(super) external_id: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) created_by: String,
    pub(super) voided_at: Option<DateTime<Utc>>,
    pub(super) void_reason: Option<String>,
    pub(super) received_from: Option<String>,
}

/// Queries [`RawGrant`]s. Only this macro lists the columns of a grant.
macro_rules! raw_grants {
    ($where:literal, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            $crate::store::postgres::users::grant_row::RawGrant,
            "select id, user_uuid, meter, number, granted, charged, transferred, expires_at, priority, source, reason,
                    external_id, created_at, created_by, voided_at, void_reason, received_from
             from grants
             where " + $where,
            $($argument),+
        )
    };
}

pub(super) use raw_grants;

impl GrantRow {
    /// AP that are neither charged nor transferred. They can be used only while the grant is live.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.granted.saturating_sub(self.charged).saturating_sub(self.transferred)
    }

    /// Whether this grant is what such a request makes.
    #[must_use]
    pub fn is_of(&self, grant: &NewGrant, author: &Author) -> bool {
        self.granted == u64::from(grant.ap.get())
            && self.expires_at == grant.expires_at
            && self.priority == grant.priority.get()
            && self.source == grant.source.as_str()
            && self.reason == author.reason
            && self.meter == grant.meter
    }
}

impl RawGrant {
    pub(super) fn parse(self) -> Result<GrantRow, PostgresError> {
        let wrong = |column| PostgresError::inconsistent("grants", column, self.id);
        Ok(GrantRow {
            id: self.id,
            user: parse_user(&self.user_uuid, self.id)?,
            meter: meter_of(self.meter).ok_or_else(|| wrong("meter"))?,
            number: self.number.map(u64::try_from).transpose().map_err(|_| wrong("number"))?,
            granted: as_count(self.granted),
            charged: as_count(self.charged),
            transferred: as_count(self.transferred),
            expires_at: self.expires_at,
            priority: u8::try_from(self.priority).map_err(|_| wrong("priority"))?,
            source: self.source,
            reason: self.reason,
            external_id: self.external_id,
            created_at: self.created_at,
            created_by: self.created_by,
            voided_at: self.voided_at,
            void_reason: self.void_reason,
            received_from: self.received_from.map(|sender| parse_user(&sender, self.id)).transpose()?,
        })
    }
}

pub(super) fn parse_user(user: &str, grant: Uuid) -> Result<UserId, PostgresError> {
    UserId::parse(user).map_err(|_| PostgresError::inconsistent("grants", "user_uuid", grant))
}
