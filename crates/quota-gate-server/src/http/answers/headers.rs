//! The headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) help clients to pace requests.

use std::fmt::Write;

use axum::http::{HeaderMap, HeaderValue};
use chrono::{DateTime, Utc};

use quota_gate::domain::{
    calendar::Calendar,
    quota::Quota,
    user_limits::Limit,
    window::{Window, WindowUnit},
};

/// `RateLimit-Policy: "monthly";q=300;w=2592000`: quota, and seconds of the period.
/// `RateLimit: "monthly";r=41;t=604800`: remaining AP, and seconds until the reset.
/// Windows and concurrency of the level follow, for example `"5h";q=80;w=18000` and `"5h";r=12;t=600`.
pub(crate) fn rate_limit(quota: &Quota, calendar: Calendar) -> HeaderMap {
    let (start, end) = (calendar.period_start(quota.period), calendar.period_end(quota.period, quota.anchor_day));
    let mut policy = format!("\"monthly\";q={};w={}", quota.quota, (end - start).num_seconds());
    let mut limit = format!("\"monthly\";r={};t={}", quota.remaining(), seconds_until(end, quota.as_of));
    for state in quota.limit_states(end).iter().skip(1) {
        let name = state.limit.name();
        let window = match state.limit {
            Limit::Window(Window { key, .. }) => format!(";w={}", key.length().num_seconds()),
            Limit::Period | Limit::Concurrency => String::new(),
        };
        let unit = match state.limit {
            Limit::Window(Window { key, .. }) if key.unit == WindowUnit::Requests => ";qu=\"requests\"",
            Limit::Concurrency => ";qu=\"concurrent-requests\"",
            Limit::Period | Limit::Window(_) => "",
        };
        let reset = state.resets_at.map(|at| format!(";t={}", seconds_until(at, quota.as_of))).unwrap_or_default();
        let _ = write!(policy, ", \"{name}\";q={}{window}{unit}", state.max);
        let _ = write!(limit, ", \"{name}\";r={}{reset}", state.remaining());
    }
    let mut headers = HeaderMap::new();
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", limit)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers
}

fn seconds_until(end: DateTime<Utc>, now: DateTime<Utc>) -> i64 {
    (end - now).num_seconds().max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quota_gate::domain::{
        ap::Ap,
        calendar::{AnchorDay, Period},
        level::LevelCode,
        quota::Source,
        user_id::UserId,
        user_limits::{UserLimits, WindowUsage},
        window::WindowKey,
    };

    #[test]
    fn headers_contain_quota_period_remaining_and_reset() {
        let mut quota = Quota {
            user: UserId::parse("u").unwrap(),
            level: LevelCode::new(1).unwrap(),
            period: Period::from_id(202_611).unwrap(),
            anchor_day: AnchorDay::FIRST,
            quota: Ap::new(300),
            own_quota: false,
            blocked: false,
            used: Ap::new(255),
            held: Ap::new(4),
            used_today: Ap::ZERO,
            total_used: 0,
            version: 1,
            as_of: "2026-11-30T23:00:00Z".parse().unwrap(),
            source: Source::Redis,
            limits: UserLimits::default(),
        };
        let headers = rate_limit(&quota, Calendar::new(chrono_tz::Tz::UTC));
        assert_eq!(headers["ratelimit-policy"], "\"monthly\";q=300;w=2592000");
        assert_eq!(headers["ratelimit"], "\"monthly\";r=41;t=3600");

        let key = |every, unit| WindowKey::parse(every, unit).unwrap();
        let usage = |key, limit, start, used, held| WindowUsage { window: Window { key, limit }, start, used, held };
        quota.limits = UserLimits {
            windows: vec![
                usage(key("1m", WindowUnit::Requests), 20, None, 0, 0),
                usage(key("5h", WindowUnit::Ap), 80, Some("2026-11-30T20:00:00Z".parse().unwrap()), 60, 8),
            ],
            concurrency: Some(3),
            live_holds: 2,
            ..UserLimits::default()
        };
        let headers = rate_limit(&quota, Calendar::new(chrono_tz::Tz::UTC));
        let policy = "\"monthly\";q=300;w=2592000, \"1m-requests\";q=20;w=60;qu=\"requests\", \"5h\";q=80;w=18000, \
                      \"concurrency\";q=3;qu=\"concurrent-requests\"";
        assert_eq!(headers["ratelimit-policy"], policy);
        let limit = "\"monthly\";r=41;t=3600, \"1m-requests\";r=20, \"5h\";r=12;t=7200, \"concurrency\";r=1";
        assert_eq!(headers["ratelimit"], limit);
    }
}
