//! The price replay as a command and over HTTP: one result, and errors that name what is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection;

use super::{
    admin::{admin, gate},
    process::{BINARY, Serve},
};
use crate::support::{World, execute, scratch};

const LEVELS: &str = "[server]\nconnections_max = 7\n\n[levels]\n\
                      free = { ap = 70, windows = [{ every = \"1d\", requests = 2 }, { every = \"5h\", ap = 40 }] }\nteam = 900\n";
const MODELS: &str = "[models]\ndefault = 10\nlarge = { input = 1, output = 5000, minimum = 2 }\n";

/// A gate whose log has messages of two users in January.
async fn with_log(world: &World) -> Serve {
    let gate = gate(world, &[]).await;
    execute(
        &world.database,
        "insert into chat_usage_logs (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, model, created_at) values
             (gen_random_uuid(), 'ann', 's', 'free', 202601, 6000, 30, 0, 'commit', 'large', '2026-01-05T10:00:00Z'),
             (gen_random_uuid(), 'ann', 's', 'free', 202601, 0, 20, 0, 'consume', '', '2026-01-05T11:00:00Z'),
             (gen_random_uuid(), 'ann', 's', 'free', 202601, 0, 1, 0, 'consume', '', '2026-01-05T18:00:00Z'),
             (gen_random_uuid(), 'ann', 's', 'free', 202601, 0, 35, 3, 'late_commit', 'large', '2026-01-31T23:59:59Z'),
             (gen_random_uuid(), '=bob', 's', 'plus', 202601, 0, 7, 0, 'consume', 'small', '2026-01-31T12:00:00Z'),
             (gen_random_uuid(), 'ann', 's', 'free', 202602, 0, 9, 0, 'consume', '', '2026-02-01T00:00:00Z')",
    )
    .await;
    gate
}

async fn replay(gate: &Serve, body: Value) -> (StatusCode, Value) {
    admin(gate, Method::POST, "price-replay", Some(body)).await
}

fn command(world: &World, arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .arg("replay")
        .args(["--from", "2026-01-01", "--to", "2026-01-31"])
        .args(arguments)
        .env("DATABASE_URL", &world.database)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn file(name: &str, text: &str) -> PathBuf {
    let dir = scratch("proposal");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), text).unwrap();
    dir.join(name)
}

fn named(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn the_command_and_the_route_have_the_same_result() {
    let world = World::new().await;
    let gate = with_log(&world).await;
    let windows = json!([{"every": "1d", "requests": 2}, {"every": "5h", "ap": 40}]);
    let levels = json!({"free": {"ap": 70, "windows": windows}, "team": 900});
    let january = |levels: &Value| json!({"from": "2026-01-01", "to": "2026-01-31", "levels": levels});
    let (status, answer) = replay(&gate, january(&levels)).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
    // At 10:00 30 AP. At 11:00 20 do not fit the window of 5 h. At 18:00 another window has begun, and it is the second
    // request of the day. On the 31st 35 AP are admitted as in the log; of 38 AP all that fit are charged.
    let free = &answer["levels"].as_array().unwrap().iter().find(|level| level["membershipLevel"] == "free").unwrap();
    let sums = [
        "users",
        "messages",
        "ap",
        "overage",
        "proposedAp",
        "proposedOverage",
        "deniedUsers",
        "deniedMessages",
        "deniedAp",
    ];
    assert_eq!(sums.map(|sum| free[sum].as_u64().unwrap()), [1, 4, 86, 3, 69, 0, 1, 1, 20], "{answer}");
    assert_eq!(sums.map(|sum| answer["total"][sum].as_u64().unwrap()), [2, 5, 93, 3, 76, 0, 1, 1, 20]);
    assert_eq!(
        free["windows"],
        json!([{"every": "5h", "unit": "ap", "limit": 40}, {"every": "1d", "unit": "requests", "limit": 2}])
    );
    assert_eq!(
        free["limits"],
        json!([
            {"limit": "quota", "users": 0, "messages": 0},
            {"limit": "5h ap", "users": 1, "messages": 1},
            {"limit": "1d requests", "users": 0, "messages": 0},
        ])
    );
    assert_eq!(free["firstDenials"], json!([{"day": "2026-01-05", "users": 1}]));
    assert_eq!(
        answer["mostAffected"],
        json!([{
            "userUuid": "ann", "membershipLevel": "free", "firstDeniedAt": "2026-01-05T11:00:00.000Z", "messages": 4, "ap": 86,
            "proposedAp": 69, "deniedMessages": 1, "deniedAp": 20,
        }])
    );
    assert_eq!(answer["notes"], json!(["levels.team is not a level of this installation: no message has it"]));

    let file = file("levels.toml", LEVELS);
    let as_json: Value =
        serde_json::from_str(&text(&command(&world, &["--levels", named(&file), "--format", "json"]))).unwrap();
    assert_eq!(as_json, answer);
    let table = text(&command(&world, &["--levels", named(&file)]));
    for part in ["70, 40 ap in 5h, 2 requests in 1d", "5h ap", "2026-01-05", "levels.team is not"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let csv = text(&command(&world, &["--levels", named(&file), "--format", "csv"]));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "section,level,name,users,messages,ap,overage,proposedAp,proposedOverage,deniedUsers,deniedMessages,deniedAp",
            "total,,,2,5,93,3,76,0,1,1,20"
        ]
    );
    for line in
        ["level,free,,1,4,86,3,69,0,1,1,20", "limit,free,5h ap,,,,,,,1,1,", "firstDenials,free,2026-01-05,,,,,,,1,,"]
    {
        assert!(lines.contains(&line), "{line}: {csv}");
    }
    assert!(lines.contains(&"user,free,ann,,4,86,,69,,,1,20"), "{csv}");

    // Without a proposal, everything is as it was, but overage that the quota would cover is charged.
    let as_now = text(&command(&world, &[]));
    assert!(as_now.contains("no message would have been denied"), "{as_now}");
    let (_, as_now) = replay(&gate, json!({"from": "2026-01-01", "to": "2026-01-31"})).await;
    assert_eq!((&as_now["total"]["proposedAp"], &as_now["total"]["ap"]), (&json!(96), &json!(93)));
}

#[tokio::test]
async fn prices_by_tokens_use_totals_as_output_and_say_so() {
    let world = World::new().await;
    let gate = with_log(&world).await;
    let prices = file("models.toml", MODELS);
    let answer: Value =
        serde_json::from_str(&text(&command(&world, &["--models", named(&prices), "--format", "json"]))).unwrap();
    // 30 for 6,000 tokens, 10 and 10 without a model, 2 as the minimum; 10 for another model.
    assert_eq!(answer["total"]["proposedAp"], 62);
    let notes = answer["notes"].to_string();
    assert!(notes.contains("of 1 messages") && notes.contains("as output") && notes.contains("the minimum"), "{notes}");
    let body = json!({
        "from": "2026-01-01",
        "to": "2026-01-31",
        "models": {"default": 10, "large": {"input": 1, "output": 5000, "minimum": 2}},
    });
    assert_eq!(replay(&gate, body).await.1, answer);
    let refuse =
        json!({"from": "2026-01-01", "to": "2026-01-31", "models": {"default": 1, "unlisted": "refuse", "large": 1}});
    let (_, refused) = replay(&gate, refuse).await;
    assert_eq!(refused["mostAffected"][0]["userUuid"], "=bob");
    let plus = refused["levels"].as_array().unwrap().iter().find(|level| level["membershipLevel"] == "plus").unwrap();
    assert_eq!(plus["limits"][1], json!({"limit": "model", "users": 1, "messages": 1}));
}

#[tokio::test]
async fn a_wrong_proposal_is_refused_and_the_error_names_the_line_or_the_key() {
    let world = World::new().await;
    let gate = with_log(&world).await;
    for (flag, content, parts) in [
        ("--levels", "[levels]\nfree = 5\nplus = = 3\n", &["wrong.toml", "line 3"][..]),
        ("--levels", "[levels]\nfree = \"many\"\n", &["wrong.toml", "levels.free", "expected AP per period"]),
        ("--levels", "[level]\nfree = 5\n", &["wrong.toml", "levels"]),
        ("--levels", "[levels]\nfree = { ap = 5, windows = [{ every = \"5x\", ap = 1 }] }\n", &["free.windows[0]"]),
        ("--models", "[models]\ngpt = 5\n", &["models", "default is missing"]),
        ("--models", "[models]\ndefault = { input = -1, output = 1 }\n", &["models: default: input"]),
    ] {
        let file = file("wrong.toml", content);
        let output = command(&world, &[flag, named(&file)]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{content}");
        assert!(parts.iter().all(|part| error.contains(part)), "{content}: {error}");
    }
    let missing = command(&world, &["--levels", "missing.toml"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("missing.toml"));

    let body = |name: &str, value: Value| {
        let mut body = json!({"from": "2026-01-01", "to": "2026-01-31"});
        body[name] = value;
        body
    };
    for (wrong, part) in [
        (body("levels", json!({"free": -1})), "levels.free"),
        (body("levels", json!({"free": {"ap": 1, "windows": [{"every": "1h"}]}})), "free.windows[0]"),
        (body("models", json!({"large": 1})), "default is missing"),
        (body("to", json!("2026-04-03")), "92 days"),
        (body("to", json!("2025-12-31")), "from"),
        (body("until", json!("2026-04-03")), "until"),
        (json!({"to": "2026-04-03"}), "from"),
    ] {
        let (status, answer) = replay(&gate, wrong.clone()).await;
        assert_eq!(status.as_u16(), 400, "{wrong}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(part), "{wrong}: {answer}");
    }
    let (status, _) = gate.post("/api/admin/price-replay", body("to", json!("2026-01-31"))).await;
    assert_eq!(status.as_u16(), 403, "only an administrator");
}

#[tokio::test]
async fn a_second_replay_is_refused_while_one_runs() {
    let world = World::new().await;
    let gate = with_log(&world).await;
    let mut other = sqlx::PgConnection::connect(&world.database).await.unwrap();
    sqlx::query("select pg_advisory_lock(29031, -2)").execute(&mut other).await.unwrap();
    let (status, answer) = replay(&gate, json!({"from": "2026-01-01", "to": "2026-01-31"})).await;
    assert_eq!((status.as_u16(), &answer["code"]), (409, &json!("CONFLICT")));
    let output = command(&world, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("another price replay is running"));
    other.close().await.unwrap();
    crate::support::eventually("the lock ends with its connection", async || {
        replay(&gate, json!({"from": "2026-01-01", "to": "2026-01-31"})).await.0.as_u16() == 200
    })
    .await;
}
