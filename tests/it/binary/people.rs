//! Own quotas and blocks over HTTP and by commands, many of them by a CSV file; and the export of a user.

use std::{fs, process::Output};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    admin::{admin, gate},
    process::{Dev, answer},
    proxy::Chat,
};
use crate::support::{World, eventually};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn consume(dev: &Dev, who: &str, ap: u32) -> (u16, Value) {
    let (status, body) =
        dev.post("/api/chat/quota/consume", json!({"userUuid": who, "sessionId": "s", "ap": ap})).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn administrators_give_own_quotas_and_block_with_a_reason() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;
    let consume = async |ap: u32| {
        let body = json!({"userUuid": "ann", "sessionId": "s", "ap": ap});
        let (status, body) = gate.post("/api/chat/quota/consume", body).await;
        (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
    };
    let put = async |path: &str, body: Value| {
        let (status, body) = admin(&gate, Method::PUT, &format!("users/{path}"), Some(body)).await;
        (status.as_u16(), body)
    };
    assert_eq!(put("ann/quota", json!({"quota": 5, "reason": "r"})).await.0, 404, "an unknown user is not created");
    assert_eq!(consume(1).await.0, 200);
    let quota = gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", "ann");
    let body = answer(quota).await.1;
    assert!(body.get("ownQuota").is_none() && body.get("blocked").is_none(), "{body}");

    let preview = put("ann/quota", json!({"quota": 500, "reason": "", "preview": true})).await.1;
    assert_eq!(
        (&preview["preview"], &preview["before"]["monthlyQuota"], &preview["after"]["monthlyQuota"]),
        (&json!(true), &json!(100), &json!(500))
    );
    assert_eq!(consume(100).await, (429, "QUOTA_EXCEEDED".into()), "a preview changes nothing");
    let given = put("ann/quota", json!({"quota": 500, "reason": "a tester", "ifLevelVersion": 0})).await.1;
    assert_eq!((&given["after"]["ownQuota"], &given["levelVersion"]), (&json!(true), &json!(1)));
    assert_eq!(consume(100).await.0, 200);
    let outdated = put("ann/quota", json!({"quota": 7, "reason": "r", "ifLevelVersion": 0})).await;
    assert_eq!((outdated.0, &outdated.1["code"]), (409, &json!("CONFLICT")));
    assert_eq!(put("ann/quota", json!({"quota": "unlimited", "reason": "staff"})).await.0, 200);
    let quota = gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", "ann");
    assert_eq!(answer(quota).await.1["unlimited"], true);
    for wrong in [
        json!({"reason": "r"}),
        json!({"quota": -1, "reason": "r"}),
        json!({"quota": "many", "reason": "r"}),
        json!({"quota": 1.5, "reason": "r"}),
        json!({"quota": 2_147_483_648_u32, "reason": "r"}),
        json!({"quota": 5}),
        json!({"quota": 5, "reason": " "}),
        json!({"quota": 5, "reason": "r", "other": 1}),
    ] {
        assert_eq!(put("ann/quota", wrong.clone()).await.0, 400, "{wrong}");
    }
    assert_eq!(put("ann/quota", json!({"quota": null, "reason": "back"})).await.1["after"]["monthlyQuota"], 100);

    assert_eq!(put("ann/block", json!({"blocked": true, "reason": "abuse"})).await.1["after"]["blocked"], true);
    assert_eq!(consume(1).await, (403, "USER_BLOCKED".into()));
    assert_eq!(admin(&gate, Method::GET, "users/ann", None).await.1["quota"]["blocked"], true);
    assert_eq!(put("ann/block", json!({"blocked": false, "reason": "sorry"})).await.0, 200);
    assert_eq!(put("ann/block", json!({"reason": "r"})).await.0, 400);

    let changes = admin(&gate, Method::GET, "changes?user=ann", None).await.1;
    let seen: Vec<(&str, &str, &Value)> = changes["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["kind"].as_str().unwrap(), change["reason"].as_str().unwrap(), &change["quotaAfter"]))
        .collect();
    let (none, max, own) = (Value::Null, json!(2_147_483_647), json!(500));
    assert_eq!(
        seen,
        [
            ("unblocked", "sorry", &none),
            ("blocked", "abuse", &none),
            ("quota", "back", &none),
            ("quota", "staff", &max),
            ("quota", "a tester", &own)
        ]
    );
    let services =
        gate.service(Method::PUT, "/api/admin/users/ann/block").json(&json!({"blocked": true, "reason": "r"}));
    assert_eq!(answer(services).await.0.as_u16(), 403, "a chat service may not block");
}

#[tokio::test]
async fn the_proxy_refuses_a_blocked_user_in_the_format_of_openai() {
    let chat = Chat::new(&[]).await;
    assert_eq!(chat.quota("ann").await, (0, 0));
    let statement = "update chat_quotas set blocked = true, level_version = level_version + 1 where user_uuid = 'ann'";
    crate::support::execute(&chat.world.database, statement).await;
    eventually("the block is in Redis", async || {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        let request = chat.gate.service(Method::POST, "/v1/chat/completions").header("X-User-Id", "ann").json(&body);
        let (status, body) = answer(request).await;
        let error = &body["error"];
        status == 403 && error["code"] == "USER_BLOCKED" && error["type"] == "permission_error"
    })
    .await;
}

#[tokio::test]
async fn commands_give_own_quotas_and_block() {
    let dev = Dev::start().await;
    assert_eq!(consume(&dev, "ann", 1).await.0, 200);
    let users = |arguments: &[&str]| dev.command(&[&["users"], arguments].concat());
    let dry = users(&["quota", "ann", "500", "--reason", "r", "--dry-run"]);
    assert_eq!(
        stdout(&dry).trim(),
        "ann: quota 500 AP of the user's own instead of 100 AP of the level\nnothing was changed"
    );
    assert_eq!(consume(&dev, "ann", 100).await.0, 429);
    assert!(users(&["quota", "ann", "unlimited", "--reason", "r"]).status.success());
    assert_eq!(consume(&dev, "ann", 100).await.0, 200);
    assert!(stdout(&users(&["block", "ann", "--reason", "r"])).contains("ann: blocked"));
    assert_eq!(consume(&dev, "ann", 1).await.0, 403);
    assert!(stdout(&users(&["block", "ann", "--reason", "r"])).contains("nothing changes"));
    assert!(users(&["unblock", "ann", "--reason", "r"]).status.success());
    assert!(users(&["quota", "ann", "level", "--reason", "r"]).status.success());
    for wrong in [&["quota", "ann", "x", "--reason", "r"][..], &["block", "nobody", "--reason", "r"], &["block", "ann"]]
    {
        assert!(!users(wrong).status.success(), "{wrong:?}");
    }
    let verified = dev.command(&["verify"]);
    assert!(verified.status.success(), "{}", stdout(&verified));
}

#[tokio::test]
async fn a_csv_file_changes_many_users_and_may_be_applied_again() {
    let dev = Dev::start().await;
    for who in ["ann", "ben", "cid"] {
        assert_eq!(consume(&dev, who, 1).await.0, 200);
    }
    let file = dev.dir.join("changes.csv");
    let lines = "user,level,quota,blocked,reason\n\
                 ann,plus,,,a contract\n\
                 ben,,500,true,a test\n\
                 cid,,unlimited,,staff\n\
                 nobody,,5,,r\n\
                 ann,gold,,,r\n\
                 ann,,-5,,r\n\
                 ann,,,maybe,r\n\
                 ann,,5,,\n\
                 bad user,,5,,r\n\
                 ann,plus\n\
                 ann,,,,nothing to do\n";
    fs::write(&file, lines).unwrap();
    let apply = |more: &[&str]| dev.command(&[&["users", "apply", file.to_str().unwrap()], more].concat());
    let dry = apply(&["--dry-run"]);
    assert!(stdout(&dry).contains("line 3: ben: quota 500 AP"), "{}", stdout(&dry));
    assert!(
        stdout(&dry).ends_with("3 users changed, 1 unchanged, 7 bad lines\nnothing was changed\n"),
        "{}",
        stdout(&dry)
    );
    assert_eq!(consume(&dev, "ann", 99).await.0, 200);
    assert_eq!(consume(&dev, "ann", 1).await.0, 429, "a dry run changes nothing");

    let first = apply(&[]);
    assert!(!first.status.success() && stdout(&first).contains("line 2: ann: level plus"), "{}", stdout(&first));
    for (line, word) in [
        (5, "no such user"),
        (6, "must be one of"),
        (7, "quota"),
        (8, "blocked must be true or false"),
        (9, "reason"),
        (10, "userUuid"),
        (11, "fields"),
    ] {
        let problems = stderr(&first);
        let found = problems.lines().any(|text| text.starts_with(&format!("line {line}: ")) && text.contains(word));
        assert!(found, "line {line}: {problems}");
    }
    assert_eq!(consume(&dev, "ann", 500).await.0, 200);
    assert_eq!(consume(&dev, "ben", 1).await.0, 403);
    assert_eq!(consume(&dev, "cid", 5_000).await.0, 200);
    assert!(stdout(&apply(&[])).contains("0 users changed, 4 unchanged, 7 bad lines"));

    fs::write(&file, "user,quota\nann,5\n").unwrap();
    assert!(stderr(&apply(&[])).contains("the first line must name the columns"));
}

#[tokio::test]
async fn an_export_has_everything_about_a_user_and_nothing_about_others() {
    let dev = Dev::start().await;
    for (who, session) in [("ann", "ann's chat"), ("ben", "ben's chat"), ("ann", "another \"chat\"")] {
        let body = json!({"userUuid": who, "sessionId": session, "ap": 3});
        assert_eq!(dev.post("/api/chat/quota/consume", body).await.0.as_u16(), 200);
    }
    dev.post("/api/chat/quota/reservations", json!({"userUuid": "ann", "sessionId": "s", "ap": 5})).await;
    dev.command(&["users", "quota", "ann", "500", "--reason", "a test"]);
    let export = || -> Value { serde_json::from_str(&stdout(&dev.command(&["export", "ann"]))).expect("JSON") };
    eventually("the charges are flushed", async || {
        let logs = &export()["postgres"]["chat_usage_logs"];
        logs.as_array().is_some_and(|rows| rows.len() == 2)
    })
    .await;
    let document = export();
    assert_eq!(document["user"], "ann");
    let record = &document["redis"]["record"];
    assert_eq!((&record["used"], &record["held"], &record["ownQuota"]), (&json!(6), &json!(5), &json!(true)));
    assert_eq!(record["holds"][0]["ap"], 5);
    let postgres = &document["postgres"];
    assert_eq!(postgres["chat_quotas"][0]["own_quota"], 500);
    assert_eq!(postgres["chat_usage_logs"][1]["session_id"], "another \"chat\"");
    assert_eq!(postgres["user_changes"][0]["reason"], "a test");
    assert!(!document.to_string().contains("ben"));
    let unknown: Value = serde_json::from_str(&stdout(&dev.command(&["export", "nobody"]))).expect("JSON");
    assert_eq!((&unknown["redis"]["record"], &unknown["postgres"]), (&Value::Null, &json!({})));
}
