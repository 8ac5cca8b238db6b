//! Routes of grants: given once, listed, voided with a reason, and refused with errors that say what to do.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    admin::admin,
    process::{Dev, SERVICE_TOKEN, Serve, answer, hash_of},
};
use crate::support::{World, eventually};

const SHOP: &str = "the token of a shop";

async fn gate(world: &World) -> Serve {
    let hash = format!("[\"{}\"]", hash_of(SHOP));
    let shop = [
        ("QUOTA_GATE__AUTH__TOKENS__SHOP__SHA256", hash.as_str()),
        ("QUOTA_GATE__AUTH__TOKENS__SHOP__SCOPES", "[grant]"),
    ];
    super::admin::gate(world, &shop).await
}

async fn as_shop(gate: &Serve, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let request = gate.request_as(SHOP, method, &format!("/api/chat/quota/grants{path}"));
    answer(if let Some(body) = body { request.json(&body) } else { request }).await
}

async fn give(gate: &Serve, body: Value) -> (StatusCode, Value) {
    as_shop(gate, Method::POST, "", Some(body)).await
}

fn order(user: &str, ap: u32) -> Value {
    json!({"userUuid": user, "ap": ap, "source": "pack", "externalId": "order-1", "reason": "pack of the shop"})
}

async fn consume(gate: &Serve, user: &str, ap: u32) -> u16 {
    let body = json!({"userUuid": user, "sessionId": "s", "ap": ap});
    gate.post("/api/chat/quota/consume", body).await.0.as_u16()
}

#[tokio::test]
async fn a_grant_is_given_once_can_be_used_and_is_listed() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let (status, first) = give(&gate, order("ann", 50)).await;
    assert_eq!((status.as_u16(), &first["replayed"]), (201, &json!(false)), "{first}");
    let (status, again) = give(&gate, order("ann", 50)).await;
    assert_eq!((status.as_u16(), &again["replayed"], &again["grant"]), (200, &json!(true), &first["grant"]));
    for other in [json!({"ap": 51}), json!({"priority": 1}), json!({"reason": "x"}), json!({"source": "bonus"})] {
        let mut body = order("ann", 50);
        body.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        let (status, problem) = give(&gate, body).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("MISMATCH")), "{other}: {problem}");
    }
    assert_eq!(consume(&gate, "ann", 130).await, 200);
    assert_eq!(consume(&gate, "ann", 21).await, 429);
    eventually("the charge is flushed", async || {
        as_shop(&gate, Method::GET, "?userUuid=ann", None).await.1["grants"][0]["charged"] == 30
    })
    .await;
    let (_, list) = as_shop(&gate, Method::GET, "?userUuid=ann", None).await;
    let grant = &list["grants"][0];
    assert_eq!((&grant["granted"], &grant["left"], &grant["state"]), (&json!(50), &json!(20), &json!("live")));
    assert_eq!((&grant["createdBy"], &grant["externalId"]), (&json!("shop"), &json!("order-1")));
    assert_eq!(as_shop(&gate, Method::GET, "?userUuid=bob", None).await.1, json!({"grants": []}));
}

#[tokio::test]
async fn a_void_has_a_reason_and_is_in_the_history() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let id = give(&gate, order("ann", 50)).await.1["grant"]["id"].as_str().unwrap().to_owned();
    let path = format!("/{id}/void");
    for wrong in [json!({}), json!({"reason": ""}), json!({"reason": "r", "more": 1})] {
        assert_eq!(as_shop(&gate, Method::POST, &path, Some(wrong)).await.0.as_u16(), 400);
    }
    assert_eq!(consume(&gate, "ann", 110).await, 200);
    let void = async || as_shop(&gate, Method::POST, &path, Some(json!({"reason": "refunded"}))).await;
    let (status, voided) = void().await;
    assert_eq!(
        (status.as_u16(), &voided["replayed"], &voided["grant"]["state"]),
        (200, &json!(false), &json!("voided"))
    );
    assert_eq!(void().await.1["replayed"], true);
    assert_eq!(consume(&gate, "ann", 1).await, 429);
    for unknown in ["/0f8fad5b-d9cb-469f-a165-70867728950e/void", "/x/void"] {
        let (status, problem) = as_shop(&gate, Method::POST, unknown, Some(json!({"reason": "r"}))).await;
        assert_eq!((status.as_u16(), &problem["detail"]), (404, &json!("no such grant")));
    }
    let changes = admin(&gate, Method::GET, "changes?user=ann", None).await.1;
    let seen = |number: usize, member: &str| changes["changes"][number][member].clone();
    assert_eq!(
        (seen(0, "kind"), seen(0, "by"), seen(0, "reason")),
        (json!("grant_voided"), json!("shop"), json!("refunded"))
    );
    assert_eq!((seen(1, "kind"), seen(1, "ap"), seen(1, "grant")), (json!("granted"), json!(50), json!(id)));
}

#[tokio::test]
async fn a_message_is_refunded_once_and_at_most_what_it_has_cost() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let body = json!({"userUuid": "ann", "sessionId": "s", "ap": 100});
    let usage = gate.post("/api/chat/quota/consume", body).await.1["usageId"].as_str().unwrap().to_owned();
    let path = format!("users/ann/messages/{usage}/refund");
    let refund = async |body: Value| admin(&gate, Method::POST, &path, Some(body)).await;
    eventually("the message is in the log", async || {
        refund(json!({"reason": "r", "ap": 101})).await.0 == StatusCode::BAD_REQUEST
    })
    .await;
    let (status, first) = refund(json!({"reason": "it answered nothing", "ap": 60})).await;
    assert_eq!((status.as_u16(), &first["grant"]["source"]), (201, &json!("refund")), "{first}");
    assert_eq!(first["grant"]["externalId"], format!("refund-{usage}"));
    assert_eq!(refund(json!({"reason": "it answered nothing", "ap": 60})).await.0.as_u16(), 200);
    assert_eq!(refund(json!({"reason": "it answered nothing"})).await.0.as_u16(), 422);
    assert_eq!((consume(&gate, "ann", 60).await, consume(&gate, "ann", 1).await), (200, 429));
    let other = format!("users/bob/messages/{usage}/refund");
    assert_eq!(admin(&gate, Method::POST, &other, Some(json!({"reason": "r"}))).await.0.as_u16(), 404);
    assert_eq!(
        admin(&gate, Method::POST, "users/ann/messages/x/refund", Some(json!({"reason": "r"}))).await.0.as_u16(),
        404
    );
}

#[tokio::test]
async fn the_gates_own_role_may_give_charge_and_void() {
    let dev = Dev::start().await;
    let as_admin = async |method: Method, path: &str, body: Option<Value>| {
        let request = dev.request(method, path).bearer_auth(dev.text("adminToken"));
        answer(if let Some(body) = body { request.json(&body) } else { request }).await
    };
    let grants = "/api/chat/quota/grants";
    let (status, given) = as_admin(Method::POST, grants, Some(order("new-user", 50))).await;
    assert_eq!(status.as_u16(), 201, "{given}");
    let body = json!({"userUuid": "new-user", "sessionId": "s", "ap": 130});
    let (status, charged) = dev.post("/api/chat/quota/consume", body).await;
    assert_eq!((status.as_u16(), &charged["quota"]["grantedRemaining"]), (200, &json!(20)), "{charged}");
    assert_eq!(charged["quota"]["grants"], json!([{"left": 20, "expiresAt": null, "priority": 100}]));
    eventually("the charge is flushed", async || {
        as_admin(Method::GET, &format!("{grants}?userUuid=new-user"), None).await.1["grants"][0]["left"] == 20
    })
    .await;
    let void = format!("{grants}/{}/void", given["grant"]["id"].as_str().unwrap());
    assert_eq!(as_admin(Method::POST, &void, Some(json!({"reason": "r"}))).await.0.as_u16(), 200);
    let verify = dev.command(&["verify"]);
    assert!(verify.status.success(), "{verify:?}");
}

#[tokio::test]
async fn invalid_grants_and_other_tokens_are_refused() {
    let world = World::new().await;
    let gate = gate(&world).await;
    for (member, value) in [
        ("userUuid", json!("a b")),
        ("ap", json!(0)),
        ("ap", json!(100_000_001)),
        ("ap", json!(1.5)),
        ("expiresAt", json!("tomorrow")),
        ("expiresAt", json!("2020-01-01T00:00:00Z")),
        ("priority", json!(256)),
        ("source", json!("Pack")),
        ("source", json!("unknown")),
        ("externalId", json!("")),
        ("externalId", json!("a b")),
        ("reason", json!("")),
        ("more", json!(1)),
    ] {
        let mut body = order("ann", 50);
        body[member] = value;
        let (status, problem) = give(&gate, body.clone()).await;
        assert_eq!(status.as_u16(), 400, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(member), "{problem}");
    }
    assert_eq!(
        world.number("select count(*) from grants").await + world.number("select count(*) from chat_quotas").await,
        0
    );
    let service = gate.request_as(SERVICE_TOKEN, Method::POST, "/api/chat/quota/grants").json(&order("ann", 1));
    let (status, problem) = answer(service).await;
    assert_eq!((status.as_u16(), &problem["detail"]), (403, &json!("this needs a token with the scope grant")));
    let reading = gate.request_as(SERVICE_TOKEN, Method::GET, "/api/chat/quota/grants?userUuid=ann");
    assert_eq!(answer(reading).await.0.as_u16(), 200);
    assert_eq!(as_shop(&gate, Method::GET, "", None).await.0.as_u16(), 400);
}
