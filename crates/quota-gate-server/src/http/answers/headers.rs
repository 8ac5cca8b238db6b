//! The headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) help clients to pace requests.

use axum::http::{HeaderMap, HeaderValue};
use chrono::{DateTime, Utc};

use quota_gate::domain::{calendar::Calendar, quota::Quota};

/// `RateLimit-Policy: "monthly";q=300;w=2592000`: quota, and seconds of the period.
/// `RateLimit: "monthly";r=41;t=604800`: remaining AP, and seconds until the reset.
pub(crate) fn rate_limit(quota: &Quota, calendar: Calendar) -> HeaderMap {
    let (start, end) = (calendar.period_start(quota.period), calendar.period_end(quota.period, quota.anchor_day));
    let policy = format!("\"monthly\";q={};w={}", quota.quota, (end - start).num_seconds());
    let limit = format!("\"monthly\";r={};t={}", quota.remaining(), seconds_until(end, quota.as_of));
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
        user_limits::UserLimits,
    };

    #[test]
    fn headers_contain_quota_period_remaining_and_reset() {
        let quota = Quota {
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
    }
}
