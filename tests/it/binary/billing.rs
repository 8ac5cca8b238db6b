//! Levels follow subscriptions, even if billing events are repeated or arrive out of order.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    admin::{admin, gate},
    process::{Dev, Serve, answer},
};
use crate::support::{World, execute};

pub(super) const SECRET: &str = "whsec_a_secret_of_the_endpoint";
const SETTINGS: &[(&str, &str)] = &[
    ("QUOTA_GATE__BILLING__WEBHOOK_SECRET", SECRET),
    (
        "QUOTA_GATE__BILLING__LEVELS",
        "{price_basic=\"basic\", price_plus=\"plus\", price_pro=\"pro\", prod_pro=\"pro\"}",
    ),
];

pub(super) fn signature(secret: &str, at: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.{body}").as_bytes());
    let mut hex = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    // As during a change of the secret: one signature per secret.
    format!("t={at},v1={},v1={hex},v0=x", "0".repeat(64))
}

pub(super) fn now() -> i64 {
    quota_gate::domain::clock::Clock::machine().now().timestamp()
}

pub(super) async fn send(gate: &Serve, header: &str, body: &str) -> (StatusCode, Value) {
    let request = Client::new().post(format!("{}/api/billing/subscription", gate.url));
    answer(request.header("Stripe-Signature", header).header("Content-Type", "application/json").body(body.to_owned()))
        .await
}

pub(super) fn event(id: &str, kind: &str, created: i64, subscription: &str, price: &str) -> Value {
    json!({
        "id": id, "object": "event", "type": format!("customer.subscription.{kind}"), "created": created,
        "data": {"object": {
            "id": subscription, "object": "subscription", "customer": "cus_1",
            "status": if kind == "deleted" { "canceled" } else { "active" },
            "metadata": {"userUuid": "ann"},
            "items": {"object": "list", "data": [{"id": "si_1", "price": {"id": price, "product": format!("prod_{price}")}}]},
        }},
    })
}

/// Sends the event; returns whether it changed something.
pub(super) async fn tells(gate: &Serve, event: Value) -> bool {
    let body = event.to_string();
    let (status, answer) = send(gate, &signature(SECRET, now(), &body), &body).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
    answer["changed"].as_bool().unwrap()
}

/// The user's level and pending level.
async fn level(gate: &Serve) -> (String, Option<String>) {
    let user = admin(gate, Method::GET, "users/ann", None).await.1;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    (text(&user["quota"]["membershipLevel"]).unwrap(), text(&user["pendingLevel"]))
}

#[tokio::test]
async fn the_level_follows_the_newest_event_of_each_subscription() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    let plus = event("evt_2", "updated", 200, "sub_1", "price_plus");
    assert!(tells(&gate, plus.clone()).await);
    assert_eq!(level(&gate).await, ("plus".into(), None));
    // A repeated event and an older event change nothing.
    assert!(!tells(&gate, plus.clone()).await);
    assert!(!tells(&gate, event("evt_1", "created", 100, "sub_1", "price_basic")).await);
    assert_eq!(level(&gate).await, ("plus".into(), None));
    // Of two subscriptions, the one with the higher level counts until it ends.
    assert!(tells(&gate, event("evt_3", "created", 300, "sub_2", "pro")).await);
    assert_eq!(level(&gate).await.0, "pro");
    assert!(tells(&gate, event("evt_5", "deleted", 400, "sub_2", "pro")).await);
    assert_eq!(level(&gate).await, ("pro".into(), Some("plus".into())), "the downgrade applies in the next period");
    // Of two events of the same second, the end counts, whichever arrives first.
    assert!(!tells(&gate, event("evt_4", "updated", 400, "sub_2", "pro")).await);
    assert_eq!(level(&gate).await.1, Some("plus".into()));
    // A level set by an administrator stays when an old event is repeated.
    admin(
        &gate,
        Method::PUT,
        "users/ann/level",
        Some(json!({"membershipLevel": "basic", "effective": "now", "reason": "r"})),
    )
    .await;
    assert!(!tells(&gate, plus).await);
    assert_eq!(level(&gate).await, ("basic".into(), None));

    let changes = admin(&gate, Method::GET, "changes?user=ann", None).await.1;
    let by: Vec<&Value> = changes["changes"].as_array().unwrap().iter().map(|change| &change["by"]).collect();
    assert_eq!(by, ["alice_the_admin", "billing", "billing", "billing"]);
    assert_eq!(changes["changes"][1]["reason"], "evt_5: subscription sub_2 has ended");
}

#[tokio::test]
async fn an_event_that_failed_to_apply_is_applied_when_repeated() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    let plus = event("evt_1", "created", 100, "sub_1", "price_plus");
    // The last write of the transaction fails.
    execute(&world.database, "alter table user_changes rename to user_changes_away").await;
    let body = plus.to_string();
    assert_eq!(send(&gate, &signature(SECRET, now(), &body), &body).await.0.as_u16(), 503);
    execute(&world.database, "alter table user_changes_away rename to user_changes").await;
    assert!(tells(&gate, plus.clone()).await);
    assert_eq!(level(&gate).await.0, "plus");
    // As if a gate of version 0.1.0 was killed after it stored the event and before it changed the level.
    let pro = event("evt_2", "updated", 200, "sub_1", "pro");
    for statement in [
        "update subscriptions set membership_level = 'pro', event_id = 'evt_2', event_at = to_timestamp(200), applied = false",
        "delete from subscription_events",
    ] {
        execute(&world.database, statement).await;
    }
    assert!(tells(&gate, pro).await);
    assert_eq!(level(&gate).await.0, "pro");
    // Its events are known even if they are not recorded.
    execute(&world.database, "delete from subscription_events").await;
    assert!(!tells(&gate, event("evt_2", "updated", 200, "sub_1", "price_basic")).await);
    assert!(!tells(&gate, plus).await);
    assert_eq!(level(&gate).await, ("pro".into(), None));
}

/// The level to which a user's subscriptions lead: the pending one, if any.
async fn target(gate: &Serve, user: &str) -> String {
    let user = admin(gate, Method::GET, &format!("users/{user}"), None).await.1;
    let level = [&user["pendingLevel"], &user["quota"]["membershipLevel"]].into_iter().find_map(Value::as_str);
    level.unwrap_or("free").to_owned()
}

/// Stripe's sequences of events, each in several orders.
#[tokio::test]
async fn sequences_of_events_lead_to_the_same_levels_in_every_order() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/stripe");
    let mut run = 0;
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let count = serde_json::from_str::<Value>(&text).unwrap()["events"].as_array().unwrap().len();
        let forward: Vec<usize> = (0..count).collect();
        let backward: Vec<usize> = (0..count).rev().collect();
        let repeated = [&backward[..], &forward, &backward].concat();
        let rotated = [&forward[1..], &forward[..1]].concat();
        for order in [forward, backward, repeated, rotated] {
            run += 1;
            let mut mine = text.clone();
            for prefix in ["evt_", "sub_", "ann", "bob"] {
                mine = mine.replace(&format!("\"{prefix}"), &format!("\"{prefix}{run}_"));
            }
            let sequence: Value = serde_json::from_str(&mine).unwrap();
            for event in &order {
                tells(&gate, sequence["events"][event].clone()).await;
            }
            for (user, level) in sequence["levels"].as_object().unwrap() {
                assert_eq!(target(&gate, user).await, level.as_str().unwrap(), "{user} of {path:?} in {order:?}");
            }
        }
    }
    assert!(run >= 80, "{run}");
}

#[tokio::test]
async fn statuses_and_pauses_that_count_as_paid_are_settings() {
    let world = World::new().await;
    let strict = [("QUOTA_GATE__BILLING__PAID_STATUSES", "[\"active\"]")];
    let lenient = [("QUOTA_GATE__BILLING__PAID_PAUSES", "[\"mark_uncollectible\"]")];
    for (settings, event_is_paid) in [(strict, false), (lenient, true)] {
        let gate = gate(&world, &[SETTINGS, &settings].concat()).await;
        let mut event =
            event(&format!("evt_{event_is_paid}"), "created", 100, &format!("sub_{event_is_paid}"), "price_plus");
        event["data"]["object"]["status"] = json!("past_due");
        event["data"]["object"]["pause_collection"] = json!({"behavior": "mark_uncollectible", "resumes_at": null});
        assert_eq!(tells(&gate, event).await, event_is_paid);
    }
}

#[tokio::test]
async fn the_gates_own_role_may_apply_and_forget_events() {
    let dev = Dev::start().await;
    let gate = Serve::start_with(&dev, SETTINGS).await;
    assert!(tells(&gate, event("evt_1", "created", 100, "sub_1", "price_plus")).await);
    assert!(tells(&gate, event("evt_2", "deleted", 200, "sub_1", "price_plus")).await);
    execute(dev.text("databaseUrl"), "delete from subscription_events where received_at < now()").await;
}

#[tokio::test]
async fn events_with_an_invalid_signature_or_content_are_refused() {
    let world = World::new().await;
    let gate = gate(&world, SETTINGS).await;
    let body = event("evt_1", "created", 100, "sub_1", "price_plus").to_string();
    for header in [
        String::new(),
        "t=x,v1=y".to_owned(),
        signature("another secret", now(), &body),
        signature(SECRET, now() - 301, &body),
        signature(SECRET, now() + 301, &body),
        signature(SECRET, now(), &(body.clone() + " ")),
        signature(SECRET, now(), &body).replace("v1=", "v0="),
    ] {
        assert_eq!(send(&gate, &header, &body).await.0.as_u16(), 401, "{header}");
    }
    let without = |pointer: &str| {
        let mut event = event("evt_1", "created", 100, "sub_1", "price_plus");
        *event.pointer_mut(pointer).unwrap() = json!({});
        event
    };
    for wrong in [
        without("/data/object/metadata"),
        without("/data/object/items"),
        without("/id"),
        event("evt_1", "created", 100, "sub_1", "price_unknown"),
        json!("x"),
    ] {
        let body = wrong.to_string();
        let (status, answer) = send(&gate, &signature(SECRET, now(), &body), &body).await;
        assert_eq!(status.as_u16(), 400, "{body}: {answer}");
    }
    let other = json!({"id": "evt_9", "type": "invoice.paid", "created": 1, "data": {"object": {}}});
    assert!(!tells(&gate, other).await);
    assert_eq!(world.number("select count(*) from subscriptions").await, 0);
    let unset = super::admin::gate(&world, &[]).await;
    assert_eq!(send(&unset, &signature(SECRET, now(), &body), &body).await.0.as_u16(), 404);
}

#[tokio::test]
async fn with_the_cycle_of_the_subscription_the_quota_resets_on_the_day_of_payment() {
    let world = World::new().await;
    let settings = [SETTINGS, &[("QUOTA_GATE__BILLING__CYCLE", "subscription")]].concat();
    let gate = gate(&world, &settings).await;
    let today = quota_gate::domain::clock::Clock::machine().now();
    let starts = today - chrono::TimeDelta::days(3);
    let anchored = starts - chrono::Months::new(12);
    let mut renewal = event("evt_1", "updated", today.timestamp(), "sub_1", "price_plus");
    // As Stripe sends it since 2025-03-31: the period is in the items.
    renewal["data"]["object"]["billing_cycle_anchor"] = json!(anchored.timestamp());
    let item = &mut renewal["data"]["object"]["items"]["data"][0];
    item["current_period_start"] = json!(starts.timestamp());
    item["current_period_end"] = json!((starts + chrono::Months::new(1)).timestamp());
    assert!(tells(&gate, renewal.clone()).await);
    assert!(!tells(&gate, renewal.clone()).await);
    let quota = admin(&gate, Method::GET, "users/ann", None).await.1["quota"].clone();
    assert_eq!(quota["membershipLevel"], "plus");
    let first = starts.date_naive();
    let month_began_later = chrono::Datelike::day(&today) <= 3;
    // If a calendar month has begun since the payment, its period goes on.
    let expected = if month_began_later { today.format("%Y-%m") } else { first.format("%Y-%m-%d") };
    if chrono::Datelike::day(&first) != 1 {
        assert_eq!(quota["period"], expected.to_string());
    }
    let changes = admin(&gate, Method::GET, "changes?user=ann", None).await.1;
    let day = chrono::Datelike::day(&anchored.date_naive());
    if day != 1 {
        assert_eq!(
            (&changes["changes"][0]["anchorBefore"], &changes["changes"][0]["anchorAfter"]),
            (&json!(1), &json!(day))
        );
    }
}

#[tokio::test]
async fn an_anchor_day_is_set_with_the_level_and_must_be_a_day_of_a_month() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;
    let set = async |day: Value| {
        let body = json!({"userUuid": "ann", "membershipLevel": "plus", "anchorDay": day});
        let request = Client::new().put(format!("{}/api/chat/quota/level", gate.url));
        answer(request.bearer_auth(super::admin::ADMIN).json(&body)).await
    };
    for wrong in [json!(0), json!(32), json!(-1), json!("1"), json!(1.5)] {
        let (status, problem) = set(wrong.clone()).await;
        assert_eq!(status.as_u16(), 400, "{wrong}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("anchorDay"), "{problem}");
    }
    let before = admin(&gate, Method::GET, "users/ann", None).await.1;
    assert!(before["quota"].is_null(), "an invalid request creates no user: {before}");
    let (status, changed) = set(json!(15)).await;
    assert_eq!(status.as_u16(), 200, "{changed}");
    let resets = changed["quota"]["quotaResetAt"].as_str().unwrap();
    assert!(resets.contains("-15T00:00:00Z"), "{resets}");
}
