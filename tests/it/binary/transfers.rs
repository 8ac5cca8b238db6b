//! Routes of transfers: accepted, logged, safe to repeat, and refused with errors that say what to do.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    admin::admin,
    process::{SERVICE_TOKEN, Serve, answer, hash_of},
};
use crate::support::{World, eventually};

const SHOP: &str = "the token of a shop";

async fn gate(world: &World, enabled: &str) -> Serve {
    let hash = format!("[\"{}\"]", hash_of(SHOP));
    let settings = [
        ("QUOTA_GATE__AUTH__TOKENS__SHOP__SHA256", hash.as_str()),
        ("QUOTA_GATE__AUTH__TOKENS__SHOP__SCOPES", "[grant]"),
        ("QUOTA_GATE__TRANSFERS__ENABLED", enabled),
    ];
    super::admin::gate(world, &settings).await
}

async fn as_shop(gate: &Serve, method: Method, path: &str, key: Option<&str>, body: Option<Value>) -> (u16, Value) {
    let mut request = gate.request_as(SHOP, method, &format!("/api/chat/quota/{path}"));
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let (status, body): (StatusCode, Value) =
        answer(if let Some(body) = body { request.json(&body) } else { request }).await;
    (status.as_u16(), body)
}

async fn transfer(gate: &Serve, key: Option<&str>, body: Value) -> (u16, Value) {
    as_shop(gate, Method::POST, "transfers", key, Some(body)).await
}

async fn give(gate: &Serve, user: &str, ap: u32) {
    let body = json!({"userUuid": user, "ap": ap, "source": "pack", "externalId": "order-1"});
    assert_eq!(as_shop(gate, Method::POST, "grants", None, Some(body)).await.0, 201);
}

async fn consume(gate: &Serve, user: &str, ap: u32) -> u16 {
    let body = json!({"userUuid": user, "sessionId": "s", "ap": ap});
    gate.post("/api/chat/quota/consume", body).await.0.as_u16()
}

fn gift(ap: u32) -> Value {
    json!({"fromUserUuid": "ann", "toUserUuid": "bob", "ap": ap, "reason": "a gift"})
}

#[tokio::test]
async fn a_transfer_is_accepted_then_logged_and_the_receiver_can_use_it() {
    let world = World::new().await;
    let gate = gate(&world, "true").await;
    give(&gate, "ann", 50).await;
    let (status, first) = transfer(&gate, Some("t-1"), gift(20)).await;
    assert_eq!((status, &first["state"], &first["replayed"]), (202, &json!("accepted"), &json!(false)), "{first}");
    eventually("the receiver can use it", async || consume(&gate, "bob", 120).await == 200).await;
    assert_eq!(consume(&gate, "bob", 1).await, 429);
    let (status, again) = transfer(&gate, Some("t-1"), gift(20)).await;
    assert_eq!((status, &again["state"], &again["replayed"]), (200, &json!("logged"), &json!(true)), "{again}");
    assert_eq!(again["transferId"], first["transferId"]);
    let path = format!("transfers/{}", first["transferId"].as_str().unwrap());
    let (status, shown) = as_shop(&gate, Method::GET, &path, None, None).await;
    assert_eq!((status, &shown["fromUserUuid"], &shown["toUserUuid"]), (200, &json!("ann"), &json!("bob")), "{shown}");
    let grant = &shown["grants"][0];
    assert_eq!((&shown["ap"], &grant["granted"], &grant["source"]), (&json!(20), &json!(20), &json!("transfer")));
    assert_eq!(
        (&grant["receivedFrom"], &grant["createdBy"], &grant["reason"]),
        (&json!("ann"), &json!("shop"), &json!("a gift"))
    );
    let (_, list) = as_shop(&gate, Method::GET, "grants?userUuid=ann", None, None).await;
    let sent = &list["grants"][0];
    assert_eq!((&sent["transferred"], &sent["left"], &sent["receivedFrom"]), (&json!(20), &json!(30), &Value::Null));
    let messages = admin(&gate, Method::GET, "users/ann/messages", None).await.1;
    let listed = &messages["messages"][0];
    assert_eq!((&listed["kind"], &listed["ap"]), (&json!("transfer"), &json!(0)), "{messages}");
    let changes = admin(&gate, Method::GET, "changes?user=bob", None).await.1;
    let received = &changes["changes"][0];
    assert_eq!((&received["kind"], &received["ap"], &received["by"]), (&json!("granted"), &json!(20), &json!("shop")));
}

#[tokio::test]
async fn what_cannot_be_transferred_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let gate = gate(&world, "true").await;
    give(&gate, "ann", 50).await;
    let (status, problem) = transfer(&gate, Some("t-1"), gift(51)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("CONFLICT")));
    assert!(problem["detail"].as_str().unwrap().starts_with("the user can transfer 50 AP now"), "{problem}");
    assert_eq!(transfer(&gate, Some("t-1"), gift(50)).await.0, 202, "a denial keeps no key");
    let (status, problem) = transfer(&gate, Some("t-1"), gift(49)).await;
    assert_eq!((status, &problem["code"]), (422, &json!("MISMATCH")));
    let block = json!({"blocked": true, "reason": "r"});
    assert_eq!(admin(&gate, Method::PUT, "users/ann/block", Some(block)).await.0.as_u16(), 200);
    let (status, problem) = transfer(&gate, Some("t-2"), gift(1)).await;
    assert_eq!((status, &problem["code"]), (403, &json!("USER_BLOCKED")));
    for unknown in ["transfers/0f8fad5b-d9cb-469f-a165-70867728950e", "transfers/x"] {
        assert_eq!(as_shop(&gate, Method::GET, unknown, None, None).await.0, 404);
    }
}

#[tokio::test]
async fn invalid_transfers_and_other_tokens_are_refused() {
    let world = World::new().await;
    let gate = gate(&world, "true").await;
    for (member, value) in [
        ("fromUserUuid", json!("a b")),
        ("toUserUuid", json!("")),
        ("toUserUuid", json!("ann")),
        ("ap", json!(0)),
        ("ap", json!(100_000_001)),
        ("ap", json!(1.5)),
        ("reason", json!("")),
        ("reason", json!("x".repeat(256))),
        ("more", json!(1)),
    ] {
        let mut body = gift(5);
        body[member] = value;
        let (status, problem) = transfer(&gate, Some("t-1"), body.clone()).await;
        assert_eq!(status, 400, "{body}: {problem}");
        // A user id is named as in the other routes.
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(member) || detail.contains("userUuid"), "{problem}");
    }
    let (status, problem) = transfer(&gate, None, gift(5)).await;
    assert_eq!((status, problem["detail"].as_str().unwrap().contains("Idempotency-Key")), (400, true), "{problem}");
    let service = gate.request_as(SERVICE_TOKEN, Method::POST, "/api/chat/quota/transfers").json(&gift(5));
    assert_eq!(answer(service.header("Idempotency-Key", "t-1")).await.0.as_u16(), 403);
}

#[tokio::test]
async fn transfers_are_off_until_they_are_enabled() {
    let world = World::new().await;
    let gate = gate(&world, "false").await;
    give(&gate, "ann", 50).await;
    let (status, problem) = transfer(&gate, Some("t-1"), gift(5)).await;
    assert_eq!((status, problem["detail"].as_str().unwrap().contains("transfers.enabled")), (403, true), "{problem}");
}
