//! Two gate processes on the same stores: traffic, a holder that dies, a gate that is killed.

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use super::process::{Dev, Serve, answer};
use crate::support::eventually;

/// The result of a `SELECT …` of one number.
async fn number(dev: &Dev, query: &str) -> i64 {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect(dev.text("databaseUrl")).await.unwrap();
    let number: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap();
    number.unwrap_or_default()
}

async fn flushed_and_verified(dev: &Dev) {
    eventually("all events are flushed and the stores agree", async || {
        let output = dev.command(&["verify"]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(" 0 events not flushed")
    })
    .await;
}

#[tokio::test]
async fn a_hold_is_settled_by_another_process_after_its_holder_was_killed() {
    let dev = Dev::start().await;
    let mut holder = Serve::start(&dev).await;
    let reserve = json!({"userUuid": "alice", "sessionId": "s", "ap": 10});
    let (status, held) = holder.post("/api/chat/quota/reservations", reserve).await;
    assert_eq!(status.as_u16(), 201);
    holder.signal(Signal::SIGKILL);
    holder.wait();
    let commit = format!("/api/chat/quota/reservations/{}/commit", held["reservationId"].as_str().unwrap());
    let (status, committed) = dev.post(&commit, json!({"ap": 8})).await;
    assert_eq!((status.as_u16(), &committed["charged"], &committed["quota"]["held"]), (200, &json!(8), &json!(0)));
    flushed_and_verified(&dev).await;
}

#[tokio::test]
async fn a_gate_that_is_killed_under_load_loses_no_acknowledged_charge() {
    let dev = Dev::start().await;
    let mut killed = Serve::start(&dev).await;
    let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let charge = async |through_dev: bool, user: &str| {
        let body = json!({"userUuid": user, "sessionId": "s"});
        let request =
            if through_dev { dev.service(Method::POST, CONSUME) } else { killed.service(Method::POST, CONSUME) };
        // Acknowledged, or unknown because the connection broke.
        request.json(&body).send().await.map(|response| response.status().as_u16())
    };
    let (mut acknowledged, mut unknown) = (0, 0);
    for round in 0..40 {
        if round == 20 {
            killed.signal(Signal::SIGKILL);
        }
        let calls = users.iter().enumerate().map(|(n, user)| charge(n % 2 == 0, user));
        for outcome in join_all(calls).await {
            match outcome {
                Ok(200) => acknowledged += 1,
                Ok(status) => panic!("{status}"),
                Err(_) => unknown += 1,
            }
        }
    }
    killed.wait();
    assert!(unknown > 0, "the gate was killed under load");
    flushed_and_verified(&dev).await;
    let rows = number(&dev, "select count(*) from chat_usage_logs").await;
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&rows),
        "{acknowledged} ≤ {rows} ≤ {acknowledged} + {unknown}"
    );
}

#[tokio::test]
async fn a_gate_stopped_by_sigterm_answers_its_requests_and_flushes_them() {
    let dev = Dev::start().await;
    let mut stopping = Serve::start(&dev).await;
    let charging = join_all((0..50).map(|n| {
        let user = format!("user-{n}");
        stopping.post(CONSUME, json!({"userUuid": user, "sessionId": "s"}))
    }));
    let answers = charging.await;
    stopping.signal(Signal::SIGTERM);
    assert!(stopping.wait().success());
    assert!(answers.iter().all(|(status, _)| status.as_u16() == 200));
    flushed_and_verified(&dev).await;
    assert_eq!(number(&dev, "select count(*) from chat_usage_logs").await, 50);
}

#[tokio::test]
async fn a_level_change_in_one_process_is_visible_in_the_other() {
    let dev = Dev::start().await;
    let other = Serve::start(&dev).await;
    let quota = async || -> Value {
        answer(other.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice")).await.1["monthlyQuota"]
            .clone()
    };
    assert_eq!(quota().await, json!(100));
    let put = dev.request(Method::PUT, "/api/chat/quota/level").bearer_auth(dev.text("adminToken"));
    let (status, _) = answer(put.json(&json!({"userUuid": "alice", "membershipLevel": "pro"}))).await;
    assert_eq!((status.as_u16(), quota().await), (200, json!(3000)));
}

const CONSUME: &str = "/api/chat/quota/consume";
