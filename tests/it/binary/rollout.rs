//! Changes of the rollout while gates are running.

use std::fs;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    admin::gate,
    process::{Serve, answer},
};
use crate::support::{World, eventually, scratch};

async fn admin(gate: &Serve, method: Method, body: Option<Value>) -> (StatusCode, Value) {
    super::admin::admin(gate, method, "rollout", body).await
}

async fn consume(gate: &Serve, ap: u32) -> (u16, Value) {
    let (status, body) =
        gate.post("/api/chat/quota/consume", json!({"userUuid": "bob", "sessionId": "s", "ap": ap})).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn one_change_of_the_rollout_reaches_every_gate() {
    let world = World::new().await;
    let (one, two) = (gate(&world, &[]).await, gate(&world, &[]).await);
    assert_eq!(consume(&two, 101).await.0, 429);
    let (status, body) =
        admin(&one, Method::PATCH, Some(json!({"mode": "off", "reason": "too many complaints"}))).await;
    assert_eq!(status.as_u16(), 200, "{body}");
    assert_eq!((&body["mode"], &body["percentage"]), (&json!("off"), &json!(100.0)));
    assert_eq!(
        (&body["changes"][0]["by"], &body["changes"][0]["reason"]),
        (&json!("alice_the_admin"), &json!("too many complaints"))
    );
    // Immediately here, soon in the other gate.
    let (status, body) = consume(&one, 101).await;
    assert_eq!(
        (status, &body["passed"], &body["charged"], &body["quota"]),
        (200, &json!("out"), &json!(0), &Value::Null)
    );
    eventually("the other gate applies the change", async || consume(&two, 101).await.0 == 200).await;
    let (status, body) =
        two.post("/api/chat/quota/reservations", json!({"userUuid": "bob", "sessionId": "s", "ap": 101})).await;
    assert_eq!((status.as_u16(), &body["reservationId"], &body["passed"]), (200, &Value::Null, &json!("out")));
    eventually("the change is logged with author and reason", async || two.log().contains("too many complaints")).await;
    let (_, body) = admin(&two, Method::GET, None).await;
    assert!(body["tally"]["out"].as_u64().unwrap() >= 2, "{body}");
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, 0);

    // Back in shadow mode, for one user.
    let change =
        json!({"mode": "shadow", "percentage": 0, "alwaysIn": ["bob"], "alwaysOut": ["carol"], "reason": "again"});
    let (_, body) = admin(&two, Method::PATCH, Some(change)).await;
    assert_eq!(
        (&body["mode"], &body["alwaysIn"], &body["alwaysOut"]),
        (&json!("shadow"), &json!(["bob"]), &json!(["carol"]))
    );
    let (status, body) = consume(&two, 101).await;
    assert_eq!((status, &body["passed"], &body["quota"]["remaining"]), (200, &json!("wouldBeDenied"), &json!(100)));
    assert_eq!(admin(&two, Method::GET, None).await.1["tally"]["shadowDenied"], 1);

    for wrong in [
        json!({"mode": "off"}),
        json!({"mode": "off", "reason": " "}),
        json!({"mode": "maybe", "reason": "r"}),
        json!({"percentage": 101, "reason": "r"}),
        json!({"alwaysIn": ["no user"], "reason": "r"}),
        json!({"procentage": 1, "reason": "r"}),
    ] {
        assert_eq!(admin(&one, Method::PATCH, Some(wrong.clone())).await.0.as_u16(), 400, "{wrong}");
    }
    let (status, _) =
        answer(one.service(Method::PATCH, "/api/admin/rollout").json(&json!({"mode": "off", "reason": "r"}))).await;
    assert_eq!(status.as_u16(), 403, "a chat service may not change the rollout");
    // A gate that starts now uses the same rollout.
    let three = gate(&world, &[]).await;
    assert_eq!(admin(&three, Method::GET, None).await.1["mode"], "shadow");
}

#[tokio::test]
async fn a_changed_file_applies_without_a_restart_and_the_most_recent_change_wins() {
    let world = World::new().await;
    let file = scratch("rollout.toml");
    fs::write(&file, "[rollout]\nmode = \"shadow\"\n").unwrap();
    let settings = [("QUOTA_GATE_CONFIG", file.to_str().unwrap())];
    let first = gate(&world, &settings).await;
    assert_eq!(consume(&first, 101).await.1["passed"], "wouldBeDenied");
    fs::write(&file, "[rollout]\nmode = \"off\"\n").unwrap();
    eventually("the file is read again", async || consume(&first, 101).await.1["passed"] == "out").await;
    // A file that cannot be read changes nothing and is logged.
    fs::write(&file, "[rollout]\nmode = \"on\"\n").unwrap();
    eventually("the error is logged", async || first.log().contains("the configuration cannot be read")).await;
    assert_eq!(consume(&first, 101).await.1["passed"], "out");
    fs::write(&file, "[rollout]\nmode = \"off\"\n").unwrap();
    // An administrator's change wins, also after a restart with the same file.
    admin(&first, Method::PATCH, Some(json!({"mode": "enforce", "reason": "it is time"}))).await;
    assert_eq!(consume(&first, 101).await.0, 429);
    drop(first);
    let second = gate(&world, &settings).await;
    assert_eq!(consume(&second, 101).await.0, 429);
    drop(second);
    // A file that was changed while no gate was running is newer.
    fs::write(&file, "[rollout]\nmode = \"shadow\"\n").unwrap();
    let third = gate(&world, &settings).await;
    assert_eq!(consume(&third, 101).await.1["passed"], "wouldBeDenied");
    let (_, body) = admin(&third, Method::GET, None).await;
    let by: Vec<&Value> = body["changes"].as_array().unwrap().iter().map(|change| &change["by"]).collect();
    assert_eq!(by, ["configuration", "alice_the_admin", "configuration", "configuration"]);
}
