//! The admin API: usage numbers match the messages, and every change is stored with its author.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::process::{Serve, answer, hash_of};
use crate::support::{World, eventually, execute};

pub(super) const ADMIN: &str = "the token of an administrator";

/// Starts a gate with an administrator's token.
pub(super) async fn gate(world: &World, settings: &[(&str, &str)]) -> Serve {
    let hash = format!("[\"{}\"]", hash_of(ADMIN));
    let mut all = vec![
        ("QUOTA_GATE__AUTH__TOKENS__ALICE_THE_ADMIN__SHA256", hash.as_str()),
        ("QUOTA_GATE__AUTH__TOKENS__ALICE_THE_ADMIN__SCOPES", "[admin]"),
    ];
    all.extend_from_slice(settings);
    Serve::on(&world.database, &world.redis.url(), &all).await
}

pub(super) async fn admin(gate: &Serve, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let request = reqwest::Client::new().request(method, format!("{}/api/admin/{path}", gate.url)).bearer_auth(ADMIN);
    answer(if let Some(body) = body { request.json(&body) } else { request }).await
}

async fn get(gate: &Serve, path: &str) -> Value {
    let (status, body) = admin(gate, Method::GET, path, None).await;
    assert_eq!(status.as_u16(), 200, "{path}: {body}");
    body
}

async fn consume(gate: &Serve, user: &str, ap: u32, model: Option<&str>) {
    let body = json!({"userUuid": user, "sessionId": "s", "ap": ap, "tokens": 10, "model": model});
    let (status, body) = gate.post("/api/chat/quota/consume", body).await;
    assert_eq!(status.as_u16(), 200, "{body}");
}

async fn reserve(gate: &Serve, user: &str, ap: u32) -> String {
    let body = json!({"userUuid": user, "sessionId": "s", "ap": ap});
    let (status, body) = gate.post("/api/chat/quota/reservations", body).await;
    assert_eq!(status.as_u16(), 201, "{body}");
    body["reservationId"].as_str().unwrap().to_owned()
}

fn column<'a>(rows: &'a Value, name: &str) -> Vec<&'a Value> {
    rows.as_array().unwrap().iter().map(|row| &row[name]).collect()
}

#[tokio::test]
async fn usage_is_the_sum_of_the_messages_by_day_level_and_model() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;
    for (user, ap, model) in
        [("ann", 3, Some("large")), ("ann", 1, Some("small")), ("bob", 2, Some("large")), ("bob", 4, None)]
    {
        consume(&gate, user, ap, model).await;
    }
    let id = reserve(&gate, "ann", 5).await;
    let commit = format!("/api/chat/quota/reservations/{id}/commit");
    let (status, _) = gate.post(&commit, json!({"ap": 2, "tokens": 7, "model": "=large"})).await;
    assert_eq!(status.as_u16(), 200);
    eventually("the charges are flushed", async || get(&gate, "usage").await["total"]["messages"] == 5).await;

    let usage = get(&gate, "usage").await;
    assert_eq!(usage["total"], json!({"messages": 5, "ap": 12, "overage": 0, "tokens": 47}));
    assert_eq!(usage["rows"].as_array().unwrap().len(), 1, "one day");
    let usage = get(&gate, "usage?groupBy=level,model").await;
    assert_eq!(column(&usage["rows"], "model"), ["", "=large", "large", "small"]);
    assert_eq!(column(&usage["rows"], "ap"), [4, 2, 5, 1]);
    assert_eq!(column(&usage["rows"], "membershipLevel"), ["free"; 4]);
    let page = get(&gate, "usage?groupBy=model&limit=3").await;
    assert_eq!((&page["next"], page["rows"].as_array().unwrap().len()), (&json!(3), 3));
    let rest = get(&gate, "usage?groupBy=model&limit=3&offset=3").await;
    assert_eq!((&rest["next"], column(&rest["rows"], "model")), (&Value::Null, vec![&json!("small")]));
    assert_eq!(get(&gate, "usage?model=large").await["total"]["ap"], 5);
    assert_eq!(get(&gate, "usage?from=2020-01-01&to=2020-12-31").await["total"]["messages"], 0);

    // Grouped by month, and one user's usage grouped by session.
    let month = get(&gate, "usage?groupBy=month").await;
    assert!(month["rows"][0]["day"].as_str().unwrap().ends_with("-01") && month["rows"][0]["ap"] == 12, "{month}");
    gate.post("/api/chat/quota/consume", json!({"userUuid": "ann", "sessionId": "other", "ap": 7})).await;
    eventually("the charges are flushed", async || get(&gate, "usage?user=ann").await["total"]["messages"] == 4).await;
    let ann = get(&gate, "usage?user=ann&groupBy=session").await;
    assert_eq!(
        (column(&ann["rows"], "sessionId"), column(&ann["rows"], "ap")),
        (vec![&json!("other"), &json!("s")], vec![&json!(7), &json!(6)])
    );
    assert_eq!(get(&gate, "usage?user=ann&groupBy=model&model=large").await["total"]["ap"], 3);

    let top = get(&gate, "top-users").await;
    assert_eq!(
        (column(&top["users"], "userUuid"), column(&top["users"], "monthlyUsed")),
        (vec![&json!("ann"), &json!("bob")], vec![&json!(13), &json!(6)])
    );
    execute(&world.database, "insert into chat_quota_months values ('bob', 202512, 'basic', 300, 250, 0), ('ann', 202512, 'pro', 3000, 900, 0)").await;
    let closed = get(&gate, "top-users?period=2025-12&limit=1").await;
    assert_eq!((&closed["users"][0]["userUuid"], &closed["users"][0]["monthlyUsed"]), (&json!("ann"), &json!(900)));
    // With 99999 of 100000 AP used, the quota runs out before the reset, except on a month's last day.
    execute(&world.database, "insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, monthly_used, total_used, quota_reset_at, created_at, updated_at) \
         select 'zoe', 'free', period, 100000, 99999, 99999, quota_reset_at, now(), now() from chat_quotas where user_uuid = 'ann'").await;
    let forecast = get(&gate, "forecast").await;
    assert_eq!(
        (&forecast["levels"][0]["active"], &forecast["levels"][0]["exhausted"]),
        (&json!(3), &json!(0)),
        "{forecast}"
    );
    assert!(column(&forecast["users"], "userUuid").contains(&&json!("zoe")), "{forecast}");
    assert!(forecast["users"][0]["runsOutAt"].as_str() < forecast["quotaResetAt"].as_str(), "{forecast}");
    assert_eq!(get(&gate, "forecast?level=pro").await["users"], json!([]));

    let csv = reqwest::Client::new().get(format!("{}/api/admin/usage?groupBy=model&format=csv", gate.url));
    let csv = csv.bearer_auth(ADMIN).send().await.unwrap().text().await.unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "day,sessionId,membershipLevel,model,messages,ap,overage,tokens");
    assert_eq!(lines[2], ",,,'=large,1,2,0,7", "a spreadsheet must not read a name as a formula");
    assert_eq!(lines.len(), 5);
    for wrong in ["top-users?period=2025-13", "top-users?period=x", "forecast?limit=0"] {
        assert_eq!(admin(&gate, Method::GET, wrong, None).await.0.as_u16(), 400, "{wrong}");
    }
    for wrong in [
        "from=x",
        "from=2026-02-01&to=2026-01-01",
        "from=2020-01-01",
        "groupBy=user",
        "groupBy=session",
        "groupBy=day,month",
        "limit=0",
        "x=1",
    ] {
        assert_eq!(admin(&gate, Method::GET, &format!("usage?{wrong}"), None).await.0.as_u16(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn users_are_paged_and_a_user_shows_months_messages_and_both_stores() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;
    execute(
        &world.database,
        "insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, monthly_used, total_used, quota_reset_at, created_at, updated_at)
         select 'user-' || lpad(n::text, 4, '0'), case when n % 10 = 0 then 'pro' else 'free' end, 202601, 100, 7, 7, now(), now(), now()
         from generate_series(1, 450) as numbers (n)",
    )
    .await;
    execute(&world.database, "insert into chat_quota_months values ('user-0007', 202512, 'basic', 300, 301, 2)").await;
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = get(&gate, &format!("users?prefix=user-&limit=200&after={after}")).await;
        assert!(page["users"][0]["monthlyUsed"] == 0, "the row's month is over: {page}");
        seen.extend(column(&page["users"], "userUuid").into_iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<Value> = (1..=450).map(|n| json!(format!("user-{n:04}"))).collect();
    assert_eq!(seen, expected, "each user once, in order");
    assert_eq!(get(&gate, "users?prefix=user-00&level=pro").await["users"].as_array().unwrap().len(), 9);
    assert_eq!(get(&gate, "users?prefix=nobody").await, json!({"users": [], "next": null}));

    for ap in 1..=5 {
        consume(&gate, "user-0007", ap, Some("large")).await;
    }
    let id = reserve(&gate, "user-0007", 9).await;
    let user = get(&gate, "users/user-0007").await;
    assert_eq!((&user["quota"]["monthlyUsed"], &user["quota"]["held"]), (&json!(15), &json!(9)));
    assert_eq!(user["holds"][0]["ap"], 9);
    assert_eq!(column(&user["months"], "period"), ["2025-12"]);
    assert_eq!((&user["months"][0]["used"], &user["months"][0]["overage"]), (&json!(301), &json!(2)));
    assert_eq!(user["comparison"]["redis"]["monthlyUsed"], 15);
    assert_eq!(user["comparison"]["drift"], Value::Null, "unflushed charges are not drift");
    eventually("the charges are flushed", async || {
        get(&gate, "users/user-0007").await["comparison"]["postgres"]["monthlyUsed"] == 15
    })
    .await;
    let user = get(&gate, "users/user-0007").await;
    assert_eq!(column(&user["months"], "period"), ["2026-01", "2025-12"], "the flush has closed January");

    // Messages of the same millisecond are listed in any order.
    let first = get(&gate, "users/user-0007/messages?limit=2").await;
    let next = first["next"].as_str().unwrap();
    let rest = get(&gate, &format!("users/user-0007/messages?limit=3&after={next}")).await;
    let mut sent = [column(&first["messages"], "ap"), column(&rest["messages"], "ap")].concat();
    sent.sort_by_key(|ap| ap.as_u64());
    assert_eq!((sent, &rest["next"]), ([1, 2, 3, 4, 5].map(|ap| json!(ap)).iter().collect(), &Value::Null));
    assert_eq!(rest["messages"][0]["model"], "large");

    // A row changed by hand is reported as drift, for the user and in the list.
    execute(&world.database, "update chat_quotas set monthly_used = 10, total_used = 17 where user_uuid = 'user-0007'")
        .await;
    let user = get(&gate, "users/user-0007").await;
    assert!(user["comparison"]["drift"].as_str().unwrap().contains("charges are missing in Postgres"), "{user}");
    let (mut after, mut users, mut differences) = (String::new(), 0, Vec::new());
    loop {
        let after_this = if after.is_empty() { String::new() } else { format!("&after={after}") };
        let page = get(&gate, &format!("drift?limit=200{after_this}")).await;
        users += page["users"].as_u64().unwrap();
        differences.extend(page["differences"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((users, differences.len()), (450, 1));
    assert_eq!((&differences[0]["redisUsed"], &differences[0]["postgresUsed"]), (&json!(15), &json!(10)));

    assert_eq!(admin(&gate, Method::GET, "users/nobody", None).await.0.as_u16(), 404);
    assert_eq!(world.number("select count(*) from chat_quotas where user_uuid = 'nobody'").await, 0);
    for wrong in [
        "users/no%20user",
        "users?limit=201",
        "users/user-0007/messages?after=x",
        "drift?after=%20",
        "changes?after=1_2",
    ] {
        assert_eq!(admin(&gate, Method::GET, wrong, None).await.0.as_u16(), 400, "{wrong}");
    }
    drop(id);
}

#[tokio::test]
async fn a_change_can_be_previewed_and_is_stored_with_author_and_reason() {
    let world = World::new().await;
    let gate = gate(&world, &[]).await;
    consume(&gate, "ann", 60, None).await;
    let id = reserve(&gate, "ann", 30).await;
    let level = |body: Value| admin(&gate, Method::PUT, "users/ann/level", Some(body));

    let (_, preview) = level(json!({"membershipLevel": "basic", "reason": "", "preview": true})).await;
    assert_eq!((&preview["before"]["membershipLevel"], &preview["before"]["remaining"]), (&json!("free"), &json!(10)));
    assert_eq!((&preview["after"]["membershipLevel"], &preview["after"]["remaining"]), (&json!("basic"), &json!(210)));
    assert_eq!(preview["effectiveAt"], Value::Null);
    assert_eq!(get(&gate, "users/ann").await["quota"]["membershipLevel"], "free", "a preview changes nothing");
    let seen = preview["levelVersion"].clone();
    let change = json!({"membershipLevel": "basic", "reason": "bought at the counter", "ifLevelVersion": seen});
    let (status, made) = level(change.clone()).await;
    assert_eq!(
        (status.as_u16(), &made["after"]),
        (200, &preview["after"]),
        "the change does what the preview showed: {made}"
    );
    let (status, refused) = level(change).await;
    assert_eq!(
        (status.as_u16(), &refused["code"]),
        (409, &json!("CONFLICT")),
        "the level has changed since the preview"
    );
    let (_, down) = level(json!({"membershipLevel": "free", "reason": "ended", })).await;
    assert_eq!((&down["after"]["membershipLevel"], &down["after"]["pendingLevel"]), (&json!("basic"), &json!("free")));
    assert!(down["effectiveAt"].is_string());
    for wrong in [
        json!({"membershipLevel": "basic"}),
        json!({"membershipLevel": "basic", "reason": " "}),
        json!({"membershipLevel": "gold", "reason": "r"}),
    ] {
        assert_eq!(level(wrong.clone()).await.0.as_u16(), 400, "{wrong}");
    }

    let hold = get(&gate, "users/ann").await["holds"][0]["id"].as_str().unwrap().to_owned();
    let release = format!("users/ann/holds/{hold}/release");
    assert_eq!(admin(&gate, Method::POST, &release, Some(json!({"reason": ""}))).await.0.as_u16(), 400);
    let (status, released) = admin(&gate, Method::POST, &release, Some(json!({"reason": "the worker is gone"}))).await;
    assert_eq!((status.as_u16(), &released["quota"]["held"]), (200, &json!(0)));
    let (status, _) = gate.post(&format!("/api/chat/quota/reservations/{id}/commit"), json!({})).await;
    assert_eq!(status.as_u16(), 409, "the hold was released before the commit");
    assert_eq!(admin(&gate, Method::POST, &release, Some(json!({"reason": "again"}))).await.0.as_u16(), 404);
    admin(&gate, Method::PATCH, "rollout", Some(json!({"percentage": 50, "reason": "half of them"}))).await;

    let changes = get(&gate, "changes?user=ann").await;
    assert_eq!(column(&changes["changes"], "kind"), ["hold_released", "level", "level"]);
    assert_eq!(column(&changes["changes"], "reason"), ["the worker is gone", "ended", "bought at the counter"]);
    assert_eq!(column(&changes["changes"], "by"), ["alice_the_admin"; 3]);
    assert_eq!((&changes["changes"][0]["hold"], &changes["changes"][0]["ap"]), (&json!(hold), &json!(30)));
    assert_eq!(
        (&changes["changes"][2]["levelBefore"], &changes["changes"][2]["levelAfter"]),
        (&json!("free"), &json!("basic"))
    );
    assert!(changes["changes"][1]["effectivePeriod"].is_string());
    let (mut after, mut kinds) = (String::new(), Vec::new());
    loop {
        let page = get(&gate, &format!("changes?limit=1{after}")).await;
        kinds.extend(column(&page["changes"], "kind").into_iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(kinds, ["rollout", "hold_released", "level", "level"]);
}

#[tokio::test]
async fn the_status_shows_partitions_reset_runs_and_dead_letters() {
    let mut world = World::new().await;
    let gate = gate(&world, &[]).await;
    consume(&gate, "ann", 1, None).await;
    execute(
        &world.database,
        "insert into dead_letters (partition, generation, entry_id, user_uuid, ap_used, payload, reason, created_at)
         values (0, 1, '1-1', 'ann', 3, 'x', 'no such period', now())",
    )
    .await;
    execute(&world.database, "insert into reset_runs (trigger, started_at, rows) values ('endpoint', now(), 12)").await;
    let status = get(&gate, "status").await;
    assert_eq!(status["redisAnswers"], true);
    let partitions = status["partitions"].as_array().unwrap();
    assert!(!partitions.is_empty() && partitions.iter().all(|partition| partition["generation"] == 1), "{status}");
    assert!(partitions.iter().all(|partition| partition["streamLength"].as_u64() >= Some(1)), "{status}");
    assert_eq!(
        (&status["deadLetters"], &status["newestDeadLetters"][0]["reason"]),
        (&json!(1), &json!("no such period"))
    );
    assert!(column(&status["resetRuns"], "trigger").contains(&&json!("endpoint")));
    assert_eq!(status["levels"][3], json!({"membershipLevel": "pro", "monthlyQuota": 3000}));
    assert!(status["problems"].to_string().contains("refused"), "{status}");
    for path in ["users", "users/ann", "users/ann/messages", "changes", "usage", "drift", "status"] {
        let (status, _) = answer(gate.service(Method::GET, &format!("/api/admin/{path}"))).await;
        assert_eq!(status.as_u16(), 403, "a chat service may not see {path}");
    }
    // Without Redis, the status shows what Postgres has.
    world.redis.kill().await;
    let status = get(&gate, "status").await;
    assert_eq!((&status["redisAnswers"], &status["deadLetters"]), (&json!(false), &json!(1)));
    assert_eq!(status["partitions"][0]["streamLength"], Value::Null);
    assert!(status["problems"].to_string().contains("Redis does not answer"), "{status}");
}
