//! Meters beside the chat, as clients of the built program see them.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::process::{BINARY, Dev, Serve, answer, hash_of};
use crate::support::{World, eventually};

const IMAGE: &str = r#"{unit = "picture", hold_seconds_max = 7200, default_cost = 2,
    levels = {free = 10, basic = {ap = 50, windows = [{every = "5h", ap = 30}]}, plus = 200, pro = 1000}}"#;
const SHOP: &str = "the token of a shop";

async fn gate(world: &World) -> Serve {
    let hash = format!("[\"{}\"]", hash_of(SHOP));
    let settings = [
        ("QUOTA_GATE__METERS__IMAGE", IMAGE),
        ("QUOTA_GATE__AUTH__TOKENS__SHOP__SHA256", hash.as_str()),
        ("QUOTA_GATE__AUTH__TOKENS__SHOP__SCOPES", "[grant]"),
    ];
    super::admin::gate(world, &settings).await
}

fn message(ap: Option<u32>) -> Value {
    json!({"userUuid": "ann", "sessionId": "s", "ap": ap})
}

async fn quota(gate: &Serve, meter: &str) -> Value {
    answer(gate.service(Method::GET, &format!("/api/{meter}/quota")).header("x-user-id", "ann")).await.1
}

#[tokio::test]
async fn the_routes_of_a_meter_are_those_of_the_chat_with_numbers_of_its_own() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let (status, body) = gate.post("/api/image/quota/consume", message(None)).await;
    assert_eq!((status, &body["charged"], &body["quota"]["meter"]), (StatusCode::OK, &json!(2), &json!("image")));
    let (_, body) = gate.post("/api/chat/quota/consume", message(Some(100))).await;
    assert_eq!((&body["quota"]["remaining"], &body["quota"]["meter"]), (&json!(0), &Value::Null));

    let of_image = quota(&gate, "image").await;
    assert_eq!((&of_image["unit"], &of_image["monthlyQuota"]), (&json!("picture"), &json!(10)));
    assert_eq!(of_image["recommendedUpgrade"]["additionalAp"], 40, "the upgrade is that of the meter");
    assert_eq!(quota(&gate, "chat").await["unit"], Value::Null);
    let (status, denial) = gate.post("/api/image/quota/consume", message(Some(9))).await;
    assert_eq!((status, &denial["remaining"]), (StatusCode::TOO_MANY_REQUESTS, &json!(8)));
    assert_eq!(denial["recommendedUpgrade"]["monthlyQuota"], 50);

    let response = gate
        .service(Method::POST, "/api/image/quota/reservations")
        .json(&json!({"userUuid": "ann", "sessionId": "s", "ap": 5, "ttlSeconds": 7200}))
        .send()
        .await
        .unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let reserved: Value = response.json().await.unwrap();
    let id = reserved["reservationId"].as_str().unwrap();
    assert_eq!(location, format!("/api/image/quota/reservations/{id}"));
    let extend = json!({"ttlSeconds": 7200});
    assert_eq!(gate.post(&format!("{location}/extend"), extend.clone()).await.0, StatusCode::OK);
    let (status, problem) = gate.post(&format!("/api/chat/quota/reservations/{id}/commit"), json!({})).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")));
    assert!(problem["detail"].as_str().unwrap().contains("/api/image/quota/reservations"), "{problem}");
    let (_, committed) = gate.post(&format!("{location}/commit"), json!({"ap": 6})).await;
    assert_eq!((&committed["charged"], &committed["quota"]["monthlyUsed"]), (&json!(6), &json!(8)));

    let grants = "/api/image/quota/grants";
    let order = json!({"userUuid": "ann", "ap": 5, "source": "pack", "externalId": "o"});
    let given = answer(gate.request_as(SHOP, Method::POST, grants).json(&order)).await;
    assert_eq!(given.0, StatusCode::CREATED, "{given:?}");
    assert_eq!(gate.post("/api/image/quota/consume", message(Some(7))).await.0, StatusCode::OK);
    assert_eq!(gate.post("/api/chat/quota/consume", message(Some(1))).await.0, StatusCode::TOO_MANY_REQUESTS);
    let of_chat = answer(gate.request_as(SHOP, Method::GET, "/api/chat/quota/grants?userUuid=ann")).await.1;
    assert_eq!(of_chat, json!({"grants": []}));
    eventually("the messages name their meters", async || {
        let listed = super::admin::admin(&gate, Method::GET, "users/ann/messages", None).await.1;
        let mut meters: Vec<&str> =
            listed["messages"].as_array().unwrap().iter().filter_map(|message| message["meter"].as_str()).collect();
        meters.sort_unstable();
        meters == ["chat", "image", "image", "image"]
    })
    .await;
    let shown = super::admin::admin(&gate, Method::GET, "users/ann", None).await.1;
    assert_eq!(
        (&shown["meters"][0]["meter"], &shown["meters"][0]["totalUsed"]),
        (&json!("image"), &json!(15)),
        "{shown}"
    );
}

#[tokio::test]
async fn wrong_meters_and_durations_are_refused_with_what_to_do() {
    let world = World::new().await;
    let gate = gate(&world).await;
    for path in ["/api/video/quota", "/api/video/quota/consume", "/api/video/quota/reservations/x/commit"] {
        let (status, problem) = answer(gate.service(Method::POST, path).json(&message(None))).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(problem["detail"], "no such meter: video; the meters of this gate are chat, image", "{path}");
    }
    for path in ["/api/image/quota/level", "/api/image/quota/nothing", "/api/chat/quota/nothing", "/api/quota"] {
        let (status, problem) = answer(gate.service(Method::PUT, path).json(&json!({}))).await;
        assert_eq!((status, &problem["detail"]), (StatusCode::NOT_FOUND, &json!(format!("no such route: {path}"))));
    }
    let (status, _) = answer(gate.service(Method::DELETE, "/api/image/quota/consume")).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    for (meter, seconds, rule) in [("image", 7201, "from 1 to 7200"), ("chat", 901, "from 1 to 900")] {
        let body = json!({"userUuid": "ann", "sessionId": "s", "ttlSeconds": seconds});
        let (status, problem) = gate.post(&format!("/api/{meter}/quota/reservations"), body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(problem["detail"].as_str().unwrap().contains(rule), "{problem}");
    }
    let unauthenticated = reqwest::Client::new().get(format!("{}/api/image/quota", gate.url)).send().await.unwrap();
    assert_eq!(unauthenticated.status(), StatusCode::UNAUTHORIZED);
    let scoped = answer(gate.request_as(SHOP, Method::POST, "/api/image/quota/consume").json(&message(None))).await;
    assert_eq!(scoped.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn commands_show_apply_and_verify_meters() {
    let dev = Dev::start().await;
    let run = |arguments: &[&str], meter: &str| {
        let output = Command::new(BINARY)
            .args(arguments)
            .env("DATABASE_URL", dev.text("databaseUrl"))
            .env("REDIS_URL", dev.text("redisUrl"))
            .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .env("QUOTA_GATE__METERS__IMAGE", meter)
            .output()
            .unwrap();
        (
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (_, dry) = run(&["levels", "apply", "--dry-run"], IMAGE);
    assert!(dry.contains("image of free: new, 10 AP\n"), "{dry}");
    assert!(run(&["levels", "apply"], IMAGE).0);
    let more = IMAGE.replace("free = 10", "free = 11");
    let (done, applied) = run(&["levels", "apply"], &more);
    assert!(done && applied.contains("image of free: 11 AP instead of 10 AP"), "{applied}");
    assert!(applied.contains("the quotas of the meters count now, for all users"), "{applied}");
    let (done, refused) = run(&["levels", "apply"], "{unit = \"picture\", levels = {free = 1}}");
    assert!(!done && refused.contains("meters.image.levels must list every level: basic is missing"), "{refused}");
    for command in [&["verify"][..], &["inspect", "alice"], &["export", "alice"]] {
        let (done, said) = run(command, &more);
        assert!(done, "{said}");
    }
}
