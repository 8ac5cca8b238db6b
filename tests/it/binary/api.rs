//! The HTTP API: charges, holds, idempotency keys, quotas, tokens and the reset.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::process::{Dev, answer};
use crate::support::eventually;

#[tokio::test]
async fn a_message_is_charged_in_one_step_and_denied_when_it_exceeds_the_quota() {
    let dev = Dev::start().await;
    let (status, body) = dev
        .post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 98, "tokens": 5}))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (body["allowed"].clone(), body["charged"].clone(), body["replayed"].clone()),
        (json!(true), json!(98), json!(false))
    );
    assert_eq!(body["quota"]["status"], "critical");

    let request = dev
        .service(Method::POST, "/api/chat/quota/consume")
        .json(&json!({"userUuid": "alice", "sessionId": "s", "ap": 5}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert!(response.headers()["ratelimit"].to_str().unwrap().starts_with("\"monthly\";r=2;t="));
    assert_eq!(response.headers()["ratelimit-policy"].to_str().unwrap().split(';').nth(1), Some("q=100"));
    let denial: Value = response.json().await.unwrap();
    let expected = json!({
        "type": "urn:quota-gate:problem:chat-quota-exceeded",
        "title": "Chat quota exceeded",
        "status": 429,
        "code": "QUOTA_EXCEEDED",
        "required": 5,
        "remaining": 2,
        "shortfall": 3,
        "quotaResetAt": denial["quotaResetAt"],
        "recommendedUpgrade": {"membershipLevel": "basic", "monthlyQuota": 300, "additionalAp": 200},
        "remedies": [
            {"kind": "wait", "until": denial["remedies"][0]["until"]},
            {"kind": "pack", "pack": "pack-50", "ap": 50},
            {"kind": "level", "membershipLevel": "basic", "monthlyQuota": 300},
        ],
    });
    assert_eq!(denial, expected);
}

#[tokio::test]
async fn one_hold_is_extended_and_committed_and_another_is_released() {
    let dev = Dev::start().await;
    let reserve = json!({"userUuid": "alice", "sessionId": "s", "ap": 10, "ttlSeconds": 60});
    let (status, held) = dev.post("/api/chat/quota/reservations", reserve.clone()).await;
    assert_eq!((status, &held["quota"]["held"]), (StatusCode::CREATED, &json!(10)));
    let path = |held: &Value, verb: &str| {
        format!("/api/chat/quota/reservations/{}/{verb}", held["reservationId"].as_str().unwrap())
    };

    let (status, longer) = dev.post(&path(&held, "extend"), json!({"ttlSeconds": 600})).await;
    assert_eq!(status, StatusCode::OK);
    assert!(longer["expiresAt"].as_str() > held["expiresAt"].as_str());
    let (status, committed) = dev.post(&path(&longer, "commit"), json!({"ap": 7, "tokens": 321})).await;
    assert_eq!((status, &committed["charged"], &committed["late"]), (StatusCode::OK, &json!(7), &json!(false)));
    let (status, again) = dev.post(&path(&held, "commit"), json!({"ap": 7, "tokens": 321})).await;
    assert_eq!((status, &again["replayed"]), (StatusCode::OK, &json!(true)));
    assert_eq!(dev.post(&path(&held, "commit"), json!({"ap": 8})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(dev.post(&path(&held, "release"), json!({})).await.0, StatusCode::CONFLICT);

    let (_, other) = dev.post("/api/chat/quota/reservations", reserve).await;
    let (status, released) = dev.post(&path(&other, "release"), json!({})).await;
    assert_eq!(
        (status, &released["quota"]["held"], &released["quota"]["remaining"]),
        (StatusCode::OK, &json!(0), &json!(93))
    );
    assert_eq!(dev.post(&path(&other, "commit"), json!({})).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_idempotency_key_makes_a_request_repeatable() {
    let dev = Dev::start().await;
    let send = async |key: &str, ap: u32| {
        let body = json!({"userUuid": "alice", "sessionId": "s", "ap": ap});
        answer(dev.service(Method::POST, "/api/chat/quota/consume").header("Idempotency-Key", key).json(&body)).await
    };
    let (_, first) = send("k-1", 3).await;
    // The quoted string, the form of the draft, is the same key.
    let (_, again) = send("\"k-1\"", 3).await;
    assert_eq!((&again["replayed"], &again["usageId"]), (&json!(true), &first["usageId"]));
    let (status, body) = send("k-1", 4).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("MISMATCH")));
    assert_eq!(send("a key", 1).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_quota_is_shown_to_its_user_and_to_a_service_for_that_user() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "plus-user", "sessionId": "s", "ap": 850})).await;
    let jwt = dev.jwt("plus-user");
    let (status, mine) = answer(dev.request(Method::GET, "/api/chat/quota").bearer_auth(&jwt)).await;
    assert_eq!(status, StatusCode::OK);
    for (member, value) in [
        ("userUuid", json!("plus-user")),
        ("membershipLevel", json!("plus")),
        ("monthlyQuota", json!(1000)),
        ("monthlyUsed", json!(850)),
        ("held", json!(0)),
        ("remaining", json!(150)),
        ("usagePercent", json!(85.0)),
        ("todayUsed", json!(850)),
        ("totalUsed", json!(850)),
        ("timeZone", json!("UTC")),
        ("status", json!("warn")),
        ("recommendedUpgrade", json!({"membershipLevel": "pro", "monthlyQuota": 3000, "additionalAp": 2000})),
        ("source", json!("redis")),
    ] {
        assert_eq!(mine[member], value, "{member}");
    }
    let (_, theirs) = answer(dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "plus-user")).await;
    assert_eq!(theirs["version"], mine["version"]);
    // A JWT gives access to its own user only, whatever the header names.
    let (status, body) =
        answer(dev.request(Method::GET, "/api/chat/quota").bearer_auth(&jwt).header("X-User-Id", "pro-user")).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("FORBIDDEN")));
    let (status, _) = answer(dev.request(Method::GET, "/api/chat/quota").header("X-User-Id", "pro-user")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn each_route_requires_its_own_kind_of_token() {
    let dev = Dev::start().await;
    let tokens = [
        dev.text("serviceToken").to_owned(),
        dev.text("adminToken").to_owned(),
        dev.text("cronToken").to_owned(),
        dev.jwt("alice"),
    ];
    let consume = json!({"userUuid": "alice", "sessionId": "s"});
    let level = json!({"userUuid": "alice", "membershipLevel": "plus"});
    let routes = [
        (Method::POST, "/api/chat/quota/consume", consume.clone(), 0),
        (Method::POST, "/api/chat/quota/reservations", consume, 0),
        (Method::PUT, "/api/chat/quota/level", level.clone(), 1),
        (Method::PUT, "/api/chat/quota/membership", level, 1), // older alias
        (Method::POST, "/api/chat/quota/reset", json!({}), 2),
    ];
    for (method, path, body, owner) in routes {
        for (kind, token) in tokens.iter().enumerate() {
            let (status, _) = answer(dev.request(method.clone(), path).bearer_auth(token).json(&body)).await;
            assert_eq!(status.is_success(), kind == owner, "{method} {path} with token {kind}: {status}");
            assert!(kind == owner || status == StatusCode::FORBIDDEN, "{method} {path} with token {kind}: {status}");
        }
        let (status, body) = answer(dev.request(method.clone(), path).json(&body)).await;
        assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("UNAUTHENTICATED")), "{path}");
    }
}

#[tokio::test]
async fn the_reset_runs_with_the_cron_token_and_reports_its_health() {
    let dev = Dev::start().await;
    let (status, body) =
        answer(dev.request(Method::POST, "/api/chat/quota/reset").bearer_auth(dev.text("cronToken"))).await;
    assert_eq!((status, &body["resetCount"], &body["failedCount"]), (StatusCode::OK, &json!(0), &json!(0)));
    assert!(body["durationMs"].is_u64());
    let (status, body) = answer(dev.request(Method::GET, "/api/chat/quota/reset")).await;
    assert_eq!(
        (status, &body["healthy"], &body["lastRun"]["trigger"]),
        (StatusCode::OK, &json!(true), &json!("endpoint"))
    );
}

#[tokio::test]
async fn health_metrics_and_openapi_need_no_token() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s"})).await;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(answer(dev.request(Method::GET, path)).await.0, StatusCode::OK, "{path}");
    }
    eventually("the flush is counted", async || {
        let metrics = answer(dev.request(Method::GET, "/metrics")).await.1;
        metrics.as_str().unwrap().contains("quota_gate_flushed_events_total 1")
    })
    .await;
}
