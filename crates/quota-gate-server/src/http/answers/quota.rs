//! Wire format of a quota and of a denial.

use axum::{
    Json,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat, Utc};
use quota_gate::{
    domain::{
        decision::{Denied, Passed},
        level::LevelCode,
        quota::{Quota, QuotaStatus, Source},
    },
    gate::Gate,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::answers::{headers::rate_limit, problem::Code};

/// A user's quota at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaBody {
    user_uuid: String,
    #[schema(example = "basic")]
    membership_level: String,
    /// AP that the user can use in the period.
    #[schema(example = 300)]
    monthly_quota: u32,
    /// AP charged in the period.
    #[schema(example = 255)]
    monthly_used: u32,
    /// AP reserved and not yet settled.
    #[schema(example = 4)]
    held: u32,
    /// monthlyQuota − monthlyUsed − held, never below 0.
    #[schema(example = 41)]
    remaining: u32,
    #[schema(example = 85.0)]
    usage_percent: f64,
    /// AP charged on the current day.
    today_used: u32,
    /// AP charged in all periods.
    total_used: u64,
    #[schema(example = "2026-11")]
    period: String,
    /// End of the period.
    #[schema(example = "2026-12-01T00:00:00Z")]
    quota_reset_at: String,
    /// Time zone of days and months.
    #[schema(example = "UTC")]
    time_zone: String,
    status: StatusWord,
    /// The next level with a higher quota; null at the top level.
    #[schema(required = true)]
    recommended_upgrade: Option<Upgrade>,
    /// Increases with every change: of two answers, the one with the higher version is newer.
    version: u64,
    /// Time of these numbers.
    as_of: String,
    source: SourceWord,
}

/// How close the user is to the limit: warn above 80 %, critical above 95 %, exhausted when nothing remains.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StatusWord {
    Ok,
    Warn,
    Critical,
    Exhausted,
}

/// Store that answered: `postgres` while Redis is unavailable; its numbers may be a moment old.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SourceWord {
    Redis,
    Postgres,
}

/// Why the rollout passed a message without a charge.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PassedWord {
    /// The rollout is off, or does not include this user.
    Out,
    /// Shadow mode: the message would have been denied.
    WouldBeDenied,
    /// Shadow mode: no decision was possible.
    Undecided,
}

/// A level with a higher quota.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Upgrade {
    #[schema(example = "plus")]
    membership_level: String,
    #[schema(example = 1000)]
    monthly_quota: u32,
    /// Difference to the current quota.
    #[schema(example = 700)]
    additional_ap: u32,
}

/// A denial: the problem `QUOTA_EXCEEDED`, status 429.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaExceeded {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: Code,
    #[serde(flatten)]
    numbers: DenialNumbers,
}

/// Numbers of a denial.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DenialNumbers {
    /// Cost of the message in AP.
    required: u32,
    /// Remaining AP.
    remaining: u32,
    /// required − remaining.
    shortfall: u32,
    quota_reset_at: String,
    #[schema(required = true)]
    recommended_upgrade: Option<Upgrade>,
}

impl QuotaBody {
    pub(crate) fn new(gate: &Gate, quota: &Quota) -> Self {
        let calendar = gate.calendar();
        Self {
            user_uuid: quota.user.to_string(),
            membership_level: level_name(gate, quota.level),
            monthly_quota: quota.quota.get(),
            monthly_used: quota.used.get(),
            held: quota.held.get(),
            remaining: quota.remaining().get(),
            usage_percent: quota.usage_percent(),
            today_used: quota.used_today.get(),
            total_used: quota.total_used,
            period: quota.period.to_string(),
            quota_reset_at: rfc3339(calendar.period_end(quota.period)),
            time_zone: calendar.time_zone().name().to_owned(),
            status: quota.status().into(),
            recommended_upgrade: Upgrade::of(gate, quota),
            version: quota.version,
            as_of: quota.as_of.to_rfc3339_opts(SecondsFormat::Millis, true),
            source: match quota.source {
                Source::Redis => SourceWord::Redis,
                Source::Postgres => SourceWord::Postgres,
            },
        }
    }
}

impl From<QuotaStatus> for StatusWord {
    fn from(status: QuotaStatus) -> Self {
        match status {
            QuotaStatus::Ok => Self::Ok,
            QuotaStatus::Warn => Self::Warn,
            QuotaStatus::Critical => Self::Critical,
            QuotaStatus::Exhausted => Self::Exhausted,
        }
    }
}

impl From<&Passed> for PassedWord {
    fn from(passed: &Passed) -> Self {
        match passed {
            Passed::Out => Self::Out,
            Passed::WouldBeDenied(_) => Self::WouldBeDenied,
            Passed::Undecided => Self::Undecided,
        }
    }
}

impl Upgrade {
    fn of(gate: &Gate, quota: &Quota) -> Option<Self> {
        quota.recommended_upgrade(&gate.levels()).map(|level| Self {
            membership_level: level.name.to_string(),
            monthly_quota: level.quota.get(),
            additional_ap: level.quota.saturating_sub(quota.quota).get(),
        })
    }
}

impl DenialNumbers {
    pub(crate) fn new(gate: &Gate, denied: &Denied) -> Self {
        let quota = &denied.quota;
        Self {
            required: denied.required.get(),
            remaining: quota.remaining().get(),
            shortfall: denied.shortfall().get(),
            quota_reset_at: rfc3339(gate.calendar().period_end(quota.period)),
            recommended_upgrade: Upgrade::of(gate, quota),
        }
    }
}

impl QuotaExceeded {
    /// Answers a message that the quota does not cover.
    pub(crate) fn response(gate: &Gate, denied: &Denied) -> Response {
        let code = Code::QuotaExceeded;
        let body = Self {
            kind: code.kind(),
            title: "Chat quota exceeded",
            status: code.status().as_u16(),
            code,
            numbers: DenialNumbers::new(gate, denied),
        };
        let mut response = (code.status(), rate_limit(&denied.quota, gate.calendar()), Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, crate::http::answers::problem::PROBLEM_JSON);
        response
    }
}

/// Name of the level with this code.
pub(crate) fn level_name(gate: &Gate, code: LevelCode) -> String {
    gate.levels().coded(code).map_or_else(|| "unknown".to_owned(), |level| level.name.to_string())
}

/// Formats as `2026-12-01T00:00:00Z`.
pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
