//! Webhooks report thresholds, resets and levels: each once by its id, even if the receiver fails.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::post,
};
use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::{
    admin::{admin, gate},
    process::Serve,
};
use crate::support::{World, eventually, execute};

const SECRET: &str = "a secret of at least thirty-two bytes, for webhooks";

/// A receiver that fails at first.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    asked: usize,
    /// Number of further requests that fail.
    faults: usize,
    by_id: BTreeMap<String, Value>,
}

impl Receiver {
    async fn start(&self) -> String {
        let router = Router::new().route("/hook", post(receive)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// The kinds of one user's notifications, sorted.
    fn kinds_of(&self, user: &str) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let of_user = state.by_id.values().filter(|told| told["userUuid"] == user);
        let mut kinds: Vec<String> = of_user.map(|told| told["type"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> Response {
    let signature = headers["quota-gate-signature"].to_str().unwrap();
    let (time, given) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let mut expected = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(expected, "{byte:02x}").unwrap();
    }
    assert_eq!(given, expected);
    let told: Value = serde_json::from_str(&body).unwrap();
    let id = headers["idempotency-key"].to_str().unwrap().to_owned();
    assert_eq!(told["id"], id.as_str());
    let fault = {
        let mut state = receiver.0.lock().unwrap();
        state.asked += 1;
        let fault = (state.faults > 0).then_some(state.asked % 3);
        state.faults = state.faults.saturating_sub(1);
        fault
    };
    match fault {
        // In turn: refusal; notification taken but answer lost; no answer.
        Some(0) => return Response::builder().status(500).body("no".into()).unwrap(),
        Some(1) => {
            receiver.0.lock().unwrap().by_id.insert(id, told);
            return Response::builder().status(502).body("lost".into()).unwrap();
        }
        Some(_) => std::future::pending().await,
        None => {}
    }
    receiver.0.lock().unwrap().by_id.insert(id, told);
    "thanks".into_response()
}

async fn consume(gate: &Serve, user: &str, ap: u32) -> u16 {
    let body = json!({"userUuid": user, "sessionId": "s", "ap": ap});
    gate.post("/api/chat/quota/consume", body).await.0.as_u16()
}

#[tokio::test]
async fn each_threshold_reset_and_level_is_delivered_once_despite_failures_and_a_killed_gate() {
    let receiver = Receiver::default();
    receiver.0.lock().unwrap().faults = 5;
    let url = receiver.start().await;
    let settings = [
        ("QUOTA_GATE__WEBHOOKS__URL", url.as_str()),
        ("QUOTA_GATE__WEBHOOKS__SECRET", SECRET),
        ("QUOTA_GATE__WEBHOOKS__TIMEOUT_MS", "300"),
    ];
    let world = World::new().await;
    let mut first = gate(&world, &settings).await;
    assert_eq!(consume(&first, "ann", 80).await, 200);
    assert_eq!(consume(&first, "ann", 1).await, 200);
    eventually("the 80 % threshold is crossed in Postgres", async || {
        world.number("select count(*) from notifications").await == 1
    })
    .await;
    for ap in [1, 14, 3, 1] {
        assert_eq!(consume(&first, "ann", ap).await, 200);
    }
    // Bob crosses all thresholds in one charge; cat crosses none.
    assert_eq!(consume(&first, "bob", 100).await, 200);
    assert_eq!(consume(&first, "cat", 80).await, 200);
    let all = "select count(*) from notifications";
    eventually("all charges are flushed", async || world.number(all).await == 6).await;
    // The gate is killed while the receiver fails; another gate continues.
    first.signal(Signal::SIGKILL);
    first.wait();
    let second = gate(&world, &settings).await;
    let thresholds = ["quota.critical", "quota.exhausted", "quota.warning"];
    eventually("ann's notifications are delivered", async || receiver.kinds_of("ann") == thresholds).await;
    eventually("bob's notifications are delivered", async || receiver.kinds_of("bob") == thresholds).await;

    // More quota, used up again: each threshold once per period.
    let level = json!({"membershipLevel": "basic", "reason": "r"});
    admin(&second, Method::PUT, "users/ann/level", Some(level)).await;
    assert_eq!(consume(&second, "ann", 200).await, 200);
    eventually("the level change is delivered", async || {
        receiver.kinds_of("ann").first().is_some_and(|kind| kind == "level.changed")
    })
    .await;
    let told = receiver.0.lock().unwrap().by_id.values().find(|told| told["type"] == "level.changed").cloned().unwrap();
    assert_eq!(
        (&told["previousLevel"], &told["membershipLevel"], &told["monthlyQuota"]),
        (&json!("free"), &json!("basic"), &json!(300))
    );
    // A reset is reported only for users who had been warned.
    execute(&world.database, "update chat_quotas set period = 202601, monthly_used = 90, quota_reset_at = now() where user_uuid in ('bob', 'cat')").await;
    execute(&world.database, "update chat_quotas set monthly_used = 10 where user_uuid = 'cat'").await;
    execute(&world.database, "select roll_chat_quotas(array['bob', 'cat'], 202612, now(), now())").await;
    eventually("the reset is delivered", async || receiver.kinds_of("bob").contains(&"quota.reset".to_owned())).await;
    assert_eq!(
        world.number("select count(*) from notifications where user_uuid = 'ann' and kind <> 'level.changed'").await,
        3
    );
    assert_eq!(world.number("select count(*) from notifications where kind = 'quota.reset'").await, 1);
    eventually("all notifications are sent", async || {
        world.number("select count(*) from notifications where sent_at is null").await == 0
    })
    .await;
    let state = receiver.0.lock().unwrap();
    assert!(state.asked > state.by_id.len(), "some were sent more than once");
}

#[tokio::test]
async fn without_a_webhook_no_notification_is_stored_and_a_short_secret_is_refused() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;
    assert_eq!(consume(&gate, "ann", 100).await, 200);
    eventually("the charge is flushed", async || world.number("select count(*) from chat_usage_logs").await == 1).await;
    assert_eq!(world.number("select count(*) from notifications").await, 0);
    let settings = [("QUOTA_GATE__WEBHOOKS__URL", "http://127.0.0.1:1/"), ("QUOTA_GATE__WEBHOOKS__SECRET", "short")];
    let said = Serve::refused(&world.database, &world.redis.url(), &settings);
    assert!(said.contains("webhooks.secret") && said.contains("openssl rand"), "{said}");
}
