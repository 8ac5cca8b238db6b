//! A store is unavailable: nothing is silently degraded, and the gate recovers afterwards.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Method, header};
use serde_json::json;

use super::process::{Dev, Serve, answer, pids_of};
use crate::support::eventually;

/// Sends a signal to one of `dev`'s servers and all its children.
fn signal(dev: &Dev, server: &str, signal: Signal) {
    let pids = pids_of(dev.dir.to_str().unwrap(), server);
    assert!(!pids.is_empty(), "{server} is running");
    for pid in pids {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

#[tokio::test]
async fn while_redis_is_unavailable_messages_get_503_and_the_quota_comes_from_postgres() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 5})).await;
    eventually("the charge is flushed", async || {
        let output = dev.command(&["verify"]);
        String::from_utf8_lossy(&output.stdout).contains(" 0 events not flushed")
    })
    .await;
    signal(&dev, "redis-server", Signal::SIGSTOP);
    let request =
        dev.service(Method::POST, "/api/chat/quota/consume").json(&json!({"userUuid": "alice", "sessionId": "s"}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 503, "an outage is never a 429");
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["code"], "QUOTA_UNAVAILABLE");
    let quota = || dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice");
    let (status, body) = answer(quota()).await;
    assert_eq!((status.as_u16(), &body["source"], &body["monthlyUsed"]), (200, &json!("postgres"), &json!(5)));
    assert_eq!(answer(dev.request(Method::GET, "/readyz")).await.0.as_u16(), 503);
    signal(&dev, "redis-server", Signal::SIGCONT);
    eventually("the gate is back to normal", async || answer(quota()).await.1["source"] == "redis").await;
    eventually("both stores agree", async || dev.command(&["verify"]).status.success()).await;
}

#[tokio::test]
async fn while_postgres_is_unavailable_users_in_redis_are_served_and_others_get_503() {
    let dev = Dev::start().await;
    let consume =
        async |user: &str| dev.post("/api/chat/quota/consume", json!({"userUuid": user, "sessionId": "s"})).await;
    assert_eq!(consume("alice").await.0.as_u16(), 200);
    signal(&dev, "postgres", Signal::SIGSTOP);
    for _ in 0..20 {
        assert_eq!(consume("alice").await.0.as_u16(), 200);
    }
    let (status, body) = answer(dev.request(Method::GET, "/readyz")).await;
    assert_eq!((status.as_u16(), &body["postgres"]), (200, &json!(false)), "the gate serves users in Redis");
    let (status, body) = consume("cold").await;
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("QUOTA_UNAVAILABLE")));
    signal(&dev, "postgres", Signal::SIGCONT);
    eventually("cold users are served again", async || consume("cold").await.0.as_u16() == 200).await;
    eventually("all events are flushed and the stores agree", async || {
        let output = dev.command(&["verify"]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(" 0 events not flushed")
    })
    .await;
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_immediately_and_settlements_are_served() {
    let dev = Dev::start().await;
    let narrow = Serve::start_with(&dev, &[("QUOTA_GATE__SERVER__REQUESTS_IN_FLIGHT_MAX", "1")]).await;
    let reserve = json!({"userUuid": "alice", "sessionId": "s", "ap": 5});
    let (_, held) = narrow.post("/api/chat/quota/reservations", reserve).await;
    let commit = format!("/api/chat/quota/reservations/{}/commit", held["reservationId"].as_str().unwrap());

    // Postgres is paused, so a request for a cold user waits.
    signal(&dev, "postgres", Signal::SIGSTOP);
    let waiting = async {
        loop {
            narrow.post("/api/chat/quota/consume", json!({"userUuid": "cold", "sessionId": "s"})).await;
        }
    };
    let meanwhile = async {
        let consume =
            async || narrow.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s"})).await;
        eventually("the next request is refused", async || {
            let (status, body) = consume().await;
            status.as_u16() == 503 && body["detail"].as_str().is_some_and(|detail| detail.contains("too many requests"))
        })
        .await;
        let (status, committed) = narrow.post(&commit, json!({})).await;
        assert_eq!((status.as_u16(), &committed["charged"]), (200, &json!(5)));
        signal(&dev, "postgres", Signal::SIGCONT);
    };
    tokio::select! {
        () = waiting => {}
        () = meanwhile => {}
    }
}

#[tokio::test]
async fn a_level_change_during_a_redis_outage_arrives_afterwards() {
    let dev = Dev::start().await;
    let quota = async || {
        let request = dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice");
        answer(request).await.1
    };
    assert_eq!(quota().await["monthlyQuota"], 100);
    signal(&dev, "redis-server", Signal::SIGSTOP);
    let put = dev.request(Method::PUT, "/api/chat/quota/level").bearer_auth(dev.text("adminToken"));
    let (status, body) = answer(put.json(&json!({"userUuid": "alice", "membershipLevel": "plus"}))).await;
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("QUOTA_UNAVAILABLE")));
    signal(&dev, "redis-server", Signal::SIGCONT);
    eventually("the new level has arrived", async || {
        let body = quota().await;
        body["source"] == "redis" && body["monthlyQuota"] == 1000
    })
    .await;
}

#[tokio::test]
async fn a_gate_stops_on_sigterm_while_postgres_is_paused() {
    let dev = Dev::start().await;
    let mut gate = Serve::start_with(&dev, &[("QUOTA_GATE__SERVER__DRAIN_TIMEOUT_MS", "200")]).await;
    let consume = async || gate.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s"})).await;
    assert_eq!(consume().await.0.as_u16(), 200);
    signal(&dev, "postgres", Signal::SIGSTOP);
    // Its flush queries Postgres and gets no answer.
    assert_eq!(consume().await.0.as_u16(), 200);
    gate.signal(Signal::SIGTERM);
    eventually("the gate ends", async || gate.ended().is_some_and(|status| status.success())).await;
    signal(&dev, "postgres", Signal::SIGCONT);
}
