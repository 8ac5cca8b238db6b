//! Wire format of a quota and of a denial. Bodies borrow: one is written for each message.

use std::fmt::Display;

use axum::{
    Json,
    http::header,
    response::{IntoResponse, Response},
};
use quota_gate::{
    domain::{
        ap::Ap,
        calendar::Period,
        decision::{Denied, Passed},
        grant::{Grant, Grants},
        level::{LevelCode, Levels},
        model_costs::ModelCosts,
        own_quota::OwnQuota,
        quota::{Quota, QuotaStatus, Source},
    },
    gate::Gate,
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::http::answers::{
    headers::rate_limit,
    limits::{BindingBody, DenialLimits, LimitBody, limits, retry_after},
    problem::{Code, is_false},
    remedies::RemedyBody,
    time::{Millis, Seconds},
};
use crate::http::meter::MeterSettings;

/// A user's quota at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaBody<'a> {
    user_uuid: &'a str,
    /// Name of the meter; absent for `chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = "image")]
    meter: Option<&'a str>,
    /// What one AP of the meter stands for; only in answers to `GET quota` and in the stream, absent for `chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = "image")]
    unit: Option<String>,
    #[schema(example = "basic")]
    membership_level: &'a str,
    /// AP that the user can use in the period.
    #[schema(example = 300)]
    monthly_quota: u32,
    /// True if the quota is the user's own; absent if it is that of the level.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    own_quota: bool,
    /// True if the user has no limit; else absent.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    unlimited: bool,
    /// True if an administrator has blocked the user, so that new messages are refused; else absent.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    blocked: bool,
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
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, example = "2026-11")]
    period: Period,
    /// End of the period.
    #[schema(value_type = String, example = "2026-12-01T00:00:00Z")]
    quota_reset_at: Seconds,
    /// Time zone of days and months.
    #[schema(example = "UTC")]
    time_zone: &'static str,
    status: StatusWord,
    /// The next level with a higher quota; null at the top level.
    #[schema(required = true)]
    recommended_upgrade: Option<Upgrade<'a>>,
    /// Live grants, in the order in which they pay. Only for users who have some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grants: Vec<LiveGrantBody>,
    /// AP of live grants that no reservation needs. Only for users who have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_remaining: Option<u32>,
    /// Increases with every change: of two answers, the one with the higher version is newer.
    version: u64,
    /// Time of these numbers.
    #[schema(value_type = String)]
    as_of: Millis,
    source: SourceWord,
    /// Model that answers now, because the quota is exhausted (`models.when_exhausted`); absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "gpt-4o-mini")]
    fallback: Option<String>,
    /// All limits, if the level has windows or concurrency: the period first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    limits: Vec<LimitBody>,
}

/// A grant that can pay.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LiveGrantBody {
    /// AP that it can still pay, including those that reservations need.
    left: u32,
    #[schema(value_type = Option<String>, required = true)]
    expires_at: Option<Millis>,
    priority: u8,
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
pub(crate) struct Upgrade<'a> {
    #[schema(example = "plus")]
    membership_level: &'a str,
    #[schema(example = 1000)]
    monthly_quota: u32,
    /// Difference to the current quota.
    #[schema(example = 700)]
    additional_ap: u32,
}

/// A denial: the problem `QUOTA_EXCEEDED`, status 429.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaExceeded<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: Code,
    #[serde(flatten)]
    numbers: DenialNumbers<'a>,
}

/// Numbers of a denial.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DenialNumbers<'a> {
    /// Cost of the message in AP.
    required: u32,
    /// Remaining AP.
    remaining: u32,
    /// required − remaining.
    shortfall: u32,
    #[schema(value_type = String)]
    quota_reset_at: Seconds,
    #[schema(required = true)]
    recommended_upgrade: Option<Upgrade<'a>>,
    /// Every limit that does not allow the message, if the level has windows or concurrency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<BindingBody>, required = false)]
    limits: Option<Vec<BindingBody>>,
    /// When the message would be allowed if nothing else happens; null for never. Together with `limits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    #[expect(clippy::option_option, reason = "null means never; absent, that the level has no such limits")]
    retry_at: Option<Option<Millis>>,
    /// What would let this message pass, the smallest first; at most one of each kind.
    remedies: Vec<RemedyBody>,
}

impl<'a> QuotaBody<'a> {
    /// `levels` are those of the gate: the caller keeps them while it serializes the body.
    pub(crate) fn new(gate: &Gate, levels: &'a Levels, quota: &'a Quota) -> Self {
        let calendar = gate.calendar();
        Self {
            user_uuid: quota.user.as_str(),
            meter: levels.meter(gate.meter()).map(|meter| meter.name.as_str()),
            unit: None,
            membership_level: level_name(levels, quota.level),
            monthly_quota: quota.quota.get(),
            own_quota: quota.own_quota,
            unlimited: quota.own_quota && quota.quota == OwnQuota::UNLIMITED.ap(),
            blocked: quota.blocked,
            monthly_used: quota.used.get(),
            held: quota.held.get(),
            remaining: quota.remaining().get(),
            usage_percent: quota.usage_percent(),
            today_used: quota.used_today.get(),
            total_used: quota.total_used,
            period: quota.period,
            quota_reset_at: Seconds(calendar.period_end(quota.period, quota.anchor_day)),
            time_zone: calendar.time_zone().name(),
            status: quota.status().into(),
            recommended_upgrade: Upgrade::of(gate, levels, quota),
            grants: LiveGrantBody::all(&quota.limits.grants),
            granted_remaining: (!quota.limits.grants.live.is_empty()).then(|| quota.limits.granted_free.get()),
            version: quota.version,
            as_of: Millis(quota.as_of),
            source: match quota.source {
                Source::Redis => SourceWord::Redis,
                Source::Postgres => SourceWord::Postgres,
            },
            fallback: None,
            limits: if quota.limits.binds() { limits(quota, calendar) } else { Vec::new() },
        }
    }

    /// Adds the model that answers when the quota is exhausted.
    pub(crate) fn with_fallback(self, costs: &ModelCosts, quota: &Quota) -> Self {
        let is_exhausted = quota.available() == Ap::ZERO;
        let fallback = is_exhausted.then(|| costs.fallback(self.membership_level)).flatten().map(ToString::to_string);
        Self { fallback, ..self }
    }

    /// Adds what one AP of the meter stands for.
    pub(crate) fn with_unit(self, meter: &MeterSettings) -> Self {
        Self { unit: meter.unit.clone(), ..self }
    }
}

impl LiveGrantBody {
    fn all(grants: &Grants) -> Vec<Self> {
        let mut live: Vec<&Grant> = grants.live.iter().collect();
        live.sort_by_key(|grant| (grant.priority, grant.expires_at.is_none(), grant.expires_at, grant.number));
        let body = |grant: &Grant| Self {
            left: grant.left.get(),
            expires_at: grant.expires_at.map(Millis),
            priority: grant.priority,
        };
        live.into_iter().map(body).collect()
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

impl<'a> Upgrade<'a> {
    fn of(gate: &Gate, levels: &'a Levels, quota: &Quota) -> Option<Self> {
        let level = levels.next_above_on(quota.quota, gate.meter())?;
        let of_level = levels.quota_on(gate.meter(), level.code);
        Some(Self {
            membership_level: level.name.as_str(),
            monthly_quota: of_level.get(),
            additional_ap: of_level.saturating_sub(quota.quota).get(),
        })
    }
}

impl<'a> DenialNumbers<'a> {
    pub(crate) fn new(gate: &Gate, levels: &'a Levels, denied: &Denied, remedies: Vec<RemedyBody>) -> Self {
        let quota = &denied.quota;
        let (limits, retry_at) = DenialLimits::of(denied, gate.calendar()).map(|of| (of.limits, of.retry_at)).unzip();
        Self {
            required: denied.required.get(),
            remaining: quota.available().get(),
            shortfall: denied.shortfall().get(),
            quota_reset_at: Seconds(gate.calendar().period_end(quota.period, quota.anchor_day)),
            recommended_upgrade: Upgrade::of(gate, levels, quota),
            limits,
            retry_at,
            remedies,
        }
    }
}

impl QuotaExceeded<'_> {
    /// Answers a message that the quota does not cover.
    pub(crate) fn response(gate: &Gate, denied: &Denied, remedies: Vec<RemedyBody>) -> Response {
        let code = Code::QuotaExceeded;
        let levels = gate.levels();
        let body = QuotaExceeded {
            kind: code.kind(),
            title: code.title(),
            status: code.status().as_u16(),
            code,
            numbers: DenialNumbers::new(gate, &levels, denied, remedies),
        };
        let mut response = (code.status(), rate_limit(&denied.quota, gate.calendar()), Json(body)).into_response();
        if let Some(seconds) = retry_after(denied, gate.calendar()) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.headers_mut().insert(header::CONTENT_TYPE, crate::http::answers::problem::PROBLEM_JSON);
        response
    }
}

/// Name of the level with this code.
pub(crate) fn level_name(levels: &Levels, code: LevelCode) -> &str {
    levels.coded(code).map_or("unknown", |level| level.name.as_str())
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
