//! Wire format of limits: those of a user, and those that do not allow a message.

use quota_gate::domain::{
    calendar::Calendar,
    decision::Denied,
    quota::Quota,
    user_limits::{Binding, LimitState},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::answers::time::Millis;

/// A limit of a user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitBody {
    /// `monthly`, `concurrency`, or the length of a window, with `-requests` if it counts requests.
    #[schema(example = "5h")]
    name: String,
    /// ap, requests or holds.
    #[schema(example = "ap")]
    unit: &'static str,
    #[schema(example = 80)]
    limit: u32,
    #[schema(example = 60)]
    used: u32,
    /// Of live holds.
    #[schema(example = 8)]
    held: u32,
    /// limit − used − held, never below 0.
    #[schema(example = 12)]
    remaining: u32,
    /// When what is used is free again; null for a window that is not running, and without live holds.
    #[schema(value_type = Option<String>, required = true)]
    resets_at: Option<Millis>,
}

/// A limit that does not allow a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BindingBody {
    #[serde(flatten)]
    limit: LimitBody,
    /// When this limit would allow the message if nothing else happens; null for never.
    #[schema(value_type = Option<String>, required = true)]
    retry_at: Option<Millis>,
}

/// Why a user was denied whose level has windows or concurrency.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DenialLimits {
    pub(crate) limits: Vec<BindingBody>,
    pub(crate) retry_at: Option<Millis>,
}

impl DenialLimits {
    /// Returns none for a user without windows and concurrency: the quota alone is the reason.
    pub(crate) fn of(denied: &Denied, calendar: Calendar) -> Option<Self> {
        if !denied.quota.limits.binds() {
            return None;
        }
        let binding = denied.binding(calendar);
        let body = |binding: &Binding| BindingBody {
            limit: LimitBody::of(&binding.state),
            retry_at: binding.retry_at.map(Millis),
        };
        Some(Self { limits: binding.iter().map(body).collect(), retry_at: denied.retry_at(calendar).map(Millis) })
    }
}

impl LimitBody {
    fn of(state: &LimitState) -> Self {
        Self {
            name: state.limit.name(),
            unit: state.limit.unit(),
            limit: state.max,
            used: state.used,
            held: state.held,
            remaining: state.remaining(),
            resets_at: state.resets_at.map(Millis),
        }
    }
}

/// All limits of a user, the period first.
pub(crate) fn limits(quota: &Quota, calendar: Calendar) -> Vec<LimitBody> {
    quota.limit_states(calendar.period_end(quota.period, quota.anchor_day)).iter().map(LimitBody::of).collect()
}

/// Seconds until a message that windows or concurrency deny would be allowed, for `Retry-After`.
pub(crate) fn retry_after(denied: &Denied, calendar: Calendar) -> Option<u64> {
    if !denied.quota.limits.binds() {
        return None;
    }
    let wait_ms = (denied.retry_at(calendar)? - denied.quota.as_of).num_milliseconds();
    Some(u64::try_from(wait_ms).unwrap_or_default().div_ceil(1000))
}
