//! No secret appears in logs (even at the most detailed level), metrics or answers.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use super::process::{Dev, Serve, answer};

#[tokio::test]
async fn logs_metrics_and_answers_show_no_secret() {
    let dev = Dev::start().await;
    let gate = Serve::start_with(
        &dev,
        &[("QUOTA_GATE__TELEMETRY__LOG_FILTER", "trace"), ("QUOTA_GATE__TELEMETRY__ACCESS_LOG", "true")],
    )
    .await;
    let jwt = dev.jwt("alice");
    let wrong = "a-guessed-token";
    let mut answers = String::new();
    for token in [dev.text("serviceToken"), dev.text("adminToken"), &jwt, wrong] {
        for (method, path) in [
            (Method::GET, "/api/chat/quota"),
            (Method::POST, "/api/chat/quota/consume"),
            (Method::POST, "/api/chat/quota/reset"),
            (Method::GET, "/nowhere"),
        ] {
            let request = gate
                .service(method, path)
                .bearer_auth(token)
                .json(&json!({"userUuid": "alice", "sessionId": "a-private-session"}));
            answers += &answer(request).await.1.to_string();
        }
    }
    let reserve = json!({"userUuid": "alice", "sessionId": "a-private-session"});
    let (_, held) = gate.post("/api/chat/quota/reservations", reserve).await;
    let reservation = held["reservationId"].as_str().unwrap().to_owned();
    gate.post(&format!("/api/chat/quota/reservations/{reservation}/commit"), json!({})).await;
    let metrics = gate.service(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();

    let kept: Value = serde_json::from_str(&fs::read_to_string(dev.dir.join("secrets.json")).unwrap()).unwrap();
    let mut secrets: Vec<String> =
        kept.as_object().unwrap().values().map(|secret| secret.as_str().unwrap().to_owned()).collect();
    let password = |url: &str| url.split(':').nth(2).unwrap().split('@').next().unwrap().to_owned();
    secrets.extend([jwt, wrong.into(), password(dev.text("redisUrl")), password(dev.text("databaseUrl"))]);
    let (log, dev_log) = (gate.log(), dev.output());
    assert!(log.contains("alice") || log.contains("answered"), "the log is detailed");
    for (place, text) in [("the log", &log), ("dev's log", &dev_log), ("metrics", &metrics), ("answers", &answers)] {
        for secret in &secrets {
            // `dev` prints tokens for people to copy, as its output states.
            let shown =
                place == "dev's log" && [dev.text("serviceToken"), dev.text("adminToken")].contains(&secret.as_str());
            assert!(shown || !text.contains(secret.as_str()), "{place} shows the secret {secret}");
        }
    }
    assert!(!metrics.contains("alice") && !metrics.contains("a-private-session"), "metrics contain no user or session");
}
