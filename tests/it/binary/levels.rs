//! `quota-gate levels apply`, and gates whose configuration names other levels than the installation has.

use std::process::{Command, Output, Stdio};

use reqwest::Method;
use serde_json::json;

use super::process::{BINARY, Dev, Serve, answer};
use crate::support::{eventually, execute};

/// The level that `dev` gives a window.
const BASIC: (&str, &str) = ("QUOTA_GATE__LEVELS__BASIC", r#"{ap = 300, windows = [{every = "5h", ap = 75}]}"#);
const FREE_150: (&str, &str) = ("QUOTA_GATE__LEVELS__FREE", "150");

fn levels(dev: &Dev, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .arg("levels")
        .args(arguments)
        .env("DATABASE_URL", dev.text("databaseUrl"))
        .env("REDIS_URL", dev.text("redisUrl"))
        .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
        .env(BASIC.0, BASIC.1)
        .envs(settings.iter().copied());
    command
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn applying_changes_quotas_immediately_and_a_dry_run_changes_nothing() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 99})).await;
    let dry = printed(&levels(&dev, &["apply", "--dry-run"], &[FREE_150]).output().unwrap());
    assert_eq!(dry.trim(), "free: 150 AP instead of 100 AP (2 users)");
    let (_, refused) =
        dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 51})).await;
    assert_eq!(refused["code"], "QUOTA_EXCEEDED");
    let applied = printed(&levels(&dev, &["apply"], &[FREE_150]).output().unwrap());
    assert!(applied.contains("free: 150 AP instead of 100 AP (2 users)"), "{applied}");
    assert!(applied.contains("2 users moved\n"), "{applied}");
    let (_, body) = dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 51})).await;
    assert_eq!((&body["charged"], &body["quota"]["remaining"]), (&json!(51), &json!(0)));
    let again = printed(&levels(&dev, &["apply"], &[FREE_150]).output().unwrap());
    assert!(again.contains("the levels of the installation are the configured ones"), "{again}");
    assert!(again.contains("\n0 users moved\n"), "{again}");
    assert!(dev.command(&["verify"]).status.success());
}

#[tokio::test]
async fn a_change_whose_process_is_killed_is_finished_by_applying_again() {
    let dev = Dev::start().await;
    execute(
        dev.text("databaseUrl"),
        "insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, quota_reset_at, created_at, updated_at)
         select 'user-' || number, 'free', 209901, 100, now(), now(), now() from generate_series(1, 6000) as numbers (number)",
    )
    .await;
    let pool = sqlx::PgPool::connect(dev.text("databaseUrl")).await.unwrap();
    // Applying stores the levels, sends them to Redis, and then waits for older transactions before it moves users.
    let mut older = pool.begin().await.unwrap();
    sqlx::query("select 1").execute(&mut *older).await.unwrap();
    let mut killed = levels(&dev, &["apply"], &[FREE_150]).stdout(Stdio::null()).spawn().unwrap();
    eventually("the levels are stored", async || {
        let stored = "select monthly_quota = 150 from membership_levels where name = 'free'";
        sqlx::query_scalar(stored).fetch_one(&pool).await.unwrap()
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    older.rollback().await.unwrap();
    let verified = dev.command(&["verify"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(!verified.status.success(), "{said}");
    assert!(said.contains("a change of the levels has not reached all users: run `quota-gate levels apply`"), "{said}");
    assert!(said.contains("drift: user-1 has 100 AP, but level free has 150 AP"), "{said}");
    let rest = printed(&levels(&dev, &["apply"], &[FREE_150]).output().unwrap());
    assert!(rest.contains("\n6001 users moved\n"), "{rest}");
    assert!(dev.command(&["verify"]).status.success());
}

#[tokio::test]
async fn a_running_gate_follows_a_change_and_a_new_one_does_not_use_its_own_configuration() {
    let dev = Dev::start().await;
    let serve = Serve::start_with(&dev, &[("QUOTA_GATE__LEVELS__FREE", "70")]).await;
    let log = serve.log();
    assert!(log.contains("free: 70 AP instead of 100 AP") && log.contains("quota-gate levels apply"), "{log}");
    let (_, body) = serve.post("/api/chat/quota/consume", json!({"userUuid": "bob", "sessionId": "s"})).await;
    assert_eq!(body["quota"]["monthlyQuota"], 100);
    printed(&levels(&dev, &["apply"], &[FREE_150]).output().unwrap());
    eventually("the gate has read the change", async || serve.log().contains("the levels changed")).await;
    let (_, quota) = answer(serve.service(Method::GET, "/api/chat/quota").header("X-User-Id", "bob")).await;
    assert_eq!(quota["monthlyQuota"], 150);
    let (_, quota) = answer(serve.service(Method::GET, "/api/chat/quota").header("X-User-Id", "carol")).await;
    assert_eq!((&quota["monthlyQuota"], &quota["membershipLevel"]), (&json!(150), &json!("free")));
}

#[tokio::test]
async fn doctor_says_which_levels_are_not_used() {
    let dev = Dev::start().await;
    let mut doctor = Command::new(BINARY);
    doctor.arg("doctor").env("DATABASE_URL", dev.text("databaseUrl")).env("REDIS_URL", dev.text("redisUrl"));
    doctor.env(BASIC.0, BASIC.1);
    let said = |command: &mut Command| String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    let good = "ok     the configured levels are those of the installation";
    assert!(said(&mut doctor).contains(good));
    let other = said(doctor.env(FREE_150.0, FREE_150.1));
    assert!(other.contains("advice the configured levels are not used (free: 150 AP instead of 100 AP)"), "{other}");
}
