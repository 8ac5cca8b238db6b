//! Each metric changes when its cause happens, and no metric contains a user.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    admin::{admin, gate},
    process::Serve,
};
use crate::support::{World, eventually};

/// The sum of a metric's series with these labels, if there are any yet.
async fn value(gate: &Serve, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let text = gate.service(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let mut found = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, number)) = line.rsplit_once(' ') else { continue };
        let (of, have) = series.split_once('{').unwrap_or((series, ""));
        if of == name && labels.iter().all(|(label, value)| have.contains(&format!("{label}=\"{value}\""))) {
            found = Some(found.unwrap_or(0.0) + number.parse::<f64>().unwrap());
        }
    }
    found
}

/// A metric's name, its labels, and the expected change.
type Moved<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

/// Runs `cause` and checks by how much each metric changes.
async fn moves(gate: &Serve, metrics: &[Moved<'_>], cause: impl AsyncFnOnce()) {
    let mut before = Vec::new();
    for (name, labels, _) in metrics {
        before.push(value(gate, name, labels).await.unwrap_or(0.0));
    }
    cause().await;
    for ((name, labels, by), before) in metrics.iter().zip(before) {
        let now = value(gate, name, labels).await.unwrap_or(0.0);
        assert!(
            (now - before - by).abs() < 1e-9,
            "{name} {labels:?} was {before}, is {now}, should have changed by {by}"
        );
    }
}

async fn post(gate: &Serve, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = gate.post(&format!("/api/chat/quota/{path}"), body).await;
    (status.as_u16(), answer)
}

async fn consume(gate: &Serve, user: &str, ap: u32) -> u16 {
    post(gate, "consume", json!({"userUuid": user, "sessionId": "s", "ap": ap})).await.0
}

async fn reserve(gate: &Serve, ap: u32, ttl_seconds: u32) -> String {
    let body = json!({"userUuid": "ann", "sessionId": "s", "ap": ap, "ttlSeconds": ttl_seconds});
    post(gate, "reservations", body).await.1["reservationId"].as_str().unwrap().to_owned()
}

const ALLOWED: &[(&str, &str)] =
    &[("operation", "consume"), ("outcome", "allowed"), ("level", "free"), ("mode", "enforce")];

#[tokio::test]
async fn every_metric_has_a_help_text_and_counters_begin_at_0() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;
    eventually("all gauges are set", async || value(&gate, "quota_gate_drift_users", &[]).await.is_some()).await;
    assert_eq!(consume(&gate, "ann", 1).await, 200);
    let text = gate.service(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help text");
    }
    // Every counter that the documentation names exists before its cause.
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
    let counters = documented.split('`').filter_map(|word| {
        let name = word.split('{').next()?;
        (name.starts_with("quota_gate_") && name.ends_with("_total")).then_some(name)
    });
    for name in counters {
        assert!(value(&gate, name, &[]).await.is_some(), "{name} does not exist before its first increase");
    }
    for (name, at_least) in [
        ("process_open_fds", 10.0),
        ("process_max_fds", 100.0),
        ("process_resident_memory_bytes", 1_000_000.0),
        ("process_start_time_seconds", 1_700_000_000.0),
        ("process_threads", 2.0),
    ] {
        assert!(value(&gate, name, &[]).await >= Some(at_least), "{name}");
    }
}

#[tokio::test]
async fn each_metric_changes_when_its_cause_happens() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;

    let one_message: &[Moved<'_>] = &[
        ("quota_gate_decisions_total", ALLOWED, 1.0),
        ("quota_gate_decision_seconds_count", &[("operation", "consume")], 1.0),
        ("quota_gate_charged_ap_total", &[], 3.0),
        ("quota_gate_cold_loads_total", &[("user", "new")], 1.0),
    ];
    moves(&gate, one_message, async || assert_eq!(consume(&gate, "ann", 3).await, 200)).await;
    // The record is in Redis now: one call, one operation, no load.
    let hot: &[Moved<'_>] = &[
        ("quota_gate_batch_operations_count", &[], 1.0),
        ("quota_gate_batch_operations_sum", &[], 1.0),
        ("quota_gate_batch_seconds_count", &[], 1.0),
        ("quota_gate_redis_call_seconds_count", &[], 1.0),
        ("quota_gate_cold_loads_total", &[], 0.0),
        ("quota_gate_http_requests_total", &[("route", "/api/chat/quota/consume"), ("status", "200")], 1.0),
    ];
    moves(&gate, hot, async || assert_eq!(consume(&gate, "ann", 1).await, 200)).await;
    let denied: &[Moved<'_>] = &[
        ("quota_gate_decisions_total", &[("outcome", "denied"), ("level", "free")], 1.0),
        ("quota_gate_charged_ap_total", &[], 0.0),
    ];
    moves(&gate, denied, async || assert_eq!(consume(&gate, "ann", 101).await, 429)).await;

    let settled: &[Moved<'_>] = &[
        ("quota_gate_decisions_total", &[("operation", "reserve"), ("outcome", "allowed")], 2.0),
        ("quota_gate_holds_settled_total", &[("by", "commit")], 1.0),
        ("quota_gate_holds_settled_total", &[("by", "release")], 1.0),
        ("quota_gate_charged_ap_total", &[], 96.0),
        ("quota_gate_overage_ap_total", &[], 4.0),
        ("quota_gate_late_ap_total", &[], 0.0),
    ];
    let both = async || {
        let released = reserve(&gate, 5, 60).await;
        post(&gate, &format!("reservations/{released}/release"), json!({})).await;
        let committed = reserve(&gate, 10, 60).await;
        let (status, _) = post(&gate, &format!("reservations/{committed}/commit"), json!({"ap": 100})).await;
        assert_eq!(status, 200);
        // A repeated commit does not count as a settlement.
        post(&gate, &format!("reservations/{committed}/commit"), json!({"ap": 100})).await;
    };
    moves(&gate, settled, both).await;

    let change = |body: Value| admin(&gate, Method::PUT, "users/ann/level", Some(body));
    change(json!({"membershipLevel": "basic", "reason": "r"})).await;
    let late: &[Moved<'_>] = &[("quota_gate_late_ap_total", &[], 7.0), ("quota_gate_holds_expired_total", &[], 1.0)];
    let expired = async || {
        let hold = reserve(&gate, 7, 1).await;
        eventually("the hold has expired", async || {
            let quota = gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", "ann");
            super::process::answer(quota).await.1["held"] == 0
        })
        .await;
        post(&gate, &format!("reservations/{hold}/commit"), json!({})).await;
    };
    moves(&gate, late, expired).await;

    admin(&gate, Method::PATCH, "rollout", Some(json!({"mode": "shadow", "reason": "r"}))).await;
    let shadow: &[Moved<'_>] = &[
        ("quota_gate_decisions_total", &[("outcome", "denied"), ("mode", "shadow"), ("level", "basic")], 1.0),
        ("quota_gate_rollout_messages_total", &[("outcome", "shadow_denied")], 1.0),
    ];
    moves(&gate, shadow, async || assert_eq!(consume(&gate, "ann", 1_000).await, 200)).await;
    admin(&gate, Method::PATCH, "rollout", Some(json!({"mode": "enforce", "reason": "r"}))).await;

    eventually("events are flushed", async || value(&gate, "quota_gate_flushed_events_total", &[]).await >= Some(4.0))
        .await;
    let mut redis = world.redis_connection().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
    eventually("users are served again", async || consume(&gate, "ann", 1).await == 200).await;
    assert!(value(&gate, "quota_gate_generations_opened_total", &[]).await >= Some(1.0));
    assert_eq!(value(&gate, "quota_gate_cold_loads_total", &[("user", "known")]).await, Some(1.0));

    // Metrics that the gate updates every few seconds.
    for (name, at_least) in [
        ("quota_gate_build_info", 1.0),
        ("quota_gate_redis_memory_used_bytes", 100_000.0),
        ("quota_gate_redis_memory_max_bytes", 0.0),
        ("quota_gate_last_reset_timestamp_seconds", 1_700_000_000.0),
        ("quota_gate_flush_lag_seconds", 0.0),
        ("quota_gate_flush_lag_events", 0.0),
        ("quota_gate_due_rows", 0.0),
        ("quota_gate_inbox_waiting", 0.0),
        ("quota_gate_dead_letters", 0.0),
        ("quota_gate_newer_journal_format", 0.0),
        ("quota_gate_drift_users", 0.0),
        ("quota_gate_over_admitted_users", 0.0),
        ("quota_gate_compared_users_total", 1.0),
        ("quota_gate_pool_connections", 1.0),
        ("quota_gate_queue_depth", 0.0),
        ("quota_gate_stream_entries", 1.0),
        ("quota_gate_stream_bytes", 1.0),
        ("quota_gate_breaker_open", 0.0),
    ] {
        eventually(name, async || value(&gate, name, &[]).await >= Some(at_least)).await;
    }
    let text = gate.service(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(!text.contains("ann"), "a metric contains a user");
}
