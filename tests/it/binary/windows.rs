//! Windows and concurrency of levels, as clients of the built program see them.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::process::{BINARY, Dev, answer};

const FREE: (&str, &str) = (
    "QUOTA_GATE__LEVELS__FREE",
    r#"{ap = 100, windows = [{every = "5h", ap = 80}, {every = "1m", requests = 9}], concurrency = 2}"#,
);

fn apply(dev: &Dev, arguments: &[&str]) -> String {
    let output = Command::new(BINARY)
        .args(["levels", "apply"])
        .args(arguments)
        .env("DATABASE_URL", dev.text("databaseUrl"))
        .env("REDIS_URL", dev.text("redisUrl"))
        .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
        .env(FREE.0, FREE.1)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn names(limits: &Value) -> Vec<&str> {
    limits.as_array().unwrap().iter().map(|limit| limit["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_denial_names_every_limit_that_binds_and_when_to_retry() {
    let dev = Dev::start().await;
    let dry = apply(&dev, &["--dry-run"]);
    assert!(dry.contains("free: 100 AP, 9 requests every 1m, 80 AP every 5h, 2 concurrent instead of 100 AP"), "{dry}");
    let before = answer(dev.service(Method::GET, "/api/chat/quota").header("x-user-id", "alice")).await.1;
    assert_eq!(before["limits"], Value::Null, "without limits the quota is what it was");
    apply(&dev, &[]);

    let consume = |ap: u32| json!({"userUuid": "alice", "sessionId": "s", "ap": ap});
    let (status, body) = dev.post("/api/chat/quota/consume", consume(78)).await;
    assert_eq!((status, &body["quota"]["remaining"]), (StatusCode::OK, &json!(22)));
    let response = dev.service(Method::GET, "/api/chat/quota").header("x-user-id", "alice").send().await.unwrap();
    let limit = response.headers()["ratelimit"].to_str().unwrap().to_owned();
    assert!(limit.contains("\"5h\";r=2;t=") && limit.contains("\"concurrency\";r=2"), "{limit}");
    let quota: Value = response.json().await.unwrap();
    assert_eq!(names(&quota["limits"]), ["monthly", "1m-requests", "5h", "concurrency"]);
    let window = &quota["limits"][2];
    assert_eq!(
        (&window["unit"], &window["limit"], &window["used"], &window["held"], &window["remaining"]),
        (&json!("ap"), &json!(80), &json!(78), &json!(0), &json!(2))
    );

    let response = dev.service(Method::POST, "/api/chat/quota/consume").json(&consume(23)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 17_000);
    let denial: Value = response.json().await.unwrap();
    assert_eq!(names(&denial["limits"]), ["monthly", "5h"]);
    assert_eq!((&denial["remaining"], &denial["shortfall"]), (&json!(2), &json!(21)));
    assert_eq!(denial["limits"][1]["retryAt"], window["resetsAt"]);
    assert_eq!(denial["retryAt"], denial["limits"][0]["retryAt"], "the latest of both");
    let (_, never) = dev.post("/api/chat/quota/consume", consume(81)).await;
    assert_eq!((&never["retryAt"], &never["limits"][1]["retryAt"]), (&Value::Null, &Value::Null));

    let reserve = json!({"userUuid": "alice", "sessionId": "s", "ap": 1});
    for _ in 0..2 {
        assert_eq!(dev.post("/api/chat/quota/reservations", reserve.clone()).await.0, StatusCode::CREATED);
    }
    let (status, denial) = dev.post("/api/chat/quota/reservations", reserve).await;
    assert_eq!((status, names(&denial["limits"])), (StatusCode::TOO_MANY_REQUESTS, vec!["5h", "concurrency"]));
    assert!(dev.command(&["verify"]).status.success());
}
