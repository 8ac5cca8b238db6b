//! Moving from other systems: the queries of docs/migrating.md, run as they stand there on tables of those systems'
//! shapes.

use std::{fs, path::Path, process::Command};

use chrono::{DateTime, TimeDelta, Utc};
use quota_gate::domain::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use super::process::{BINARY, Dev, answer};
use crate::support::{World, execute};

/// Levels that the queries name.
const LEVELS: [(&str, &str); 2] = [
    (
        "QUOTA_GATE__LEVELS__PLUS",
        r#"{ap = 50000, windows = [{every = "7d", ap = 5000}, {every = "1d", ap = 5000}, {every = "30d", ap = 50000}]}"#,
    ),
    ("QUOTA_GATE__LEVELS__PRO", r#"{ap = 90000, windows = [{every = "1d", ap = 9000}]}"#),
];

/// The query below a heading of the document.
fn query(heading: &str) -> String {
    let text = fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/migrating.md"))).unwrap();
    let section = text.split_once(&format!("\n## {heading}\n")).unwrap().1;
    let query = section.split_once("```sql\n").unwrap().1.split_once("```").unwrap().0;
    query.to_owned()
}

/// Imports from these tables by query and, a second time, by NDJSON. Returns the gate.
async fn moved(tables: &str, heading: &str, summary: &str) -> Dev {
    let dev = Dev::start().await;
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY)
            .args(arguments)
            .env("DATABASE_URL", dev.text("databaseUrl"))
            .env("REDIS_URL", dev.text("redisUrl"))
            .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .envs(LEVELS)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    run(&["levels", "apply"]);
    let old = World::new().await;
    execute(&old.database, "create schema old").await;
    let in_schema = |sql: &str| format!("set search_path = old; {sql}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(in_schema(tables))).execute(&old.pool).await.unwrap();
    let url = format!("{}?options=-csearch_path%3Dold", old.database);
    let query = query(heading);
    let imported = run(&["import", "--from-postgres", &url, "--query", &query]);
    assert_eq!(imported, summary);

    let lines: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select to_jsonb(given)::text from ({query}) as given")))
            .fetch_all(&sqlx::PgPool::connect(&url).await.unwrap())
            .await
            .unwrap();
    let file = dev.dir.join("users.ndjson");
    fs::write(&file, lines.join("\n")).unwrap();
    let users = lines.len();
    assert_eq!(
        run(&["import", file.to_str().unwrap()]),
        format!("0 users imported, 0 changed level, {users} unchanged, 0 bad lines")
    );
    run(&["verify"]);
    dev
}

async fn quota(dev: &Dev, user: &str) -> Value {
    answer(dev.service(Method::GET, "/api/chat/quota").header("x-user-id", user)).await.1
}

/// Use of the window of this length.
fn used_in(quota: &Value, window: &str) -> Value {
    let limits = quota["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["name"] == window).unwrap()["used"].clone()
}

/// AP that are left of each live grant.
fn grants(quota: &Value) -> Vec<u64> {
    let all = quota["grants"].as_array().cloned().unwrap_or_default();
    all.iter().map(|grant| grant["left"].as_u64().unwrap()).collect()
}

/// Whether the period ends so many days after the test began, or after now: midnight may be between them.
fn resets_in(quota: &Value, days: i64, begun: DateTime<Utc>) -> bool {
    let dates = [begun, Clock::machine().now()].map(|at| (at + TimeDelta::days(days)).date_naive().to_string());
    dates.iter().any(|date| quota["quotaResetAt"].as_str().unwrap().starts_with(date))
}

#[tokio::test]
async fn from_litellm() {
    let begun = Clock::machine().now();
    let tables = r#"
        create table "LiteLLM_BudgetTable" (budget_id text primary key, max_budget double precision, budget_duration text, budget_reset_at timestamp(3));
        create table "LiteLLM_UserTable" (user_id text primary key, max_budget double precision, spend double precision not null default 0,
            budget_duration text, budget_reset_at timestamp(3));
        create table "LiteLLM_EndUserTable" (user_id text primary key, spend double precision not null default 0, budget_id text, blocked boolean not null default false);
        insert into "LiteLLM_UserTable" values
            ('monthly', 10, 1.2341, '30d', now() at time zone 'UTC' + interval '9 days'),
            ('weekly', 10, 2.5, '7d', now() at time zone 'UTC' + interval '3 days'),
            ('over', 10, 2.5, '7d', now() at time zone 'UTC' - interval '1 minute'),
            ('plain', null, 0.05, null, null);
        insert into "LiteLLM_BudgetTable" values ('b', 20, '1d', now() at time zone 'UTC' + interval '1 hour');
        insert into "LiteLLM_EndUserTable" values ('end', 0.7, 'b', false), ('none', 0, null, false), ('blocked', 1, 'b', true);"#;
    let dev = moved(tables, "LiteLLM", "6 users imported, 0 changed level, 0 unchanged, 0 bad lines").await;
    let monthly = quota(&dev, "monthly").await;
    assert_eq!((&monthly["membershipLevel"], &monthly["monthlyUsed"]), (&json!("plus"), &json!(1_235)));
    assert!(resets_in(&monthly, 9, begun), "{monthly}");
    let weekly = quota(&dev, "weekly").await;
    assert_eq!((&weekly["monthlyUsed"], used_in(&weekly, "7d")), (&json!(2_500), json!(2_500)));
    assert_eq!(used_in(&quota(&dev, "over").await, "7d"), json!(0));
    let end = quota(&dev, "end").await;
    assert_eq!((&end["membershipLevel"], used_in(&end, "1d")), (&json!("pro"), json!(700)));
    assert_eq!(
        (&quota(&dev, "plain").await["monthlyUsed"], &quota(&dev, "none").await["membershipLevel"]),
        (&json!(50), &json!("free"))
    );
}

#[tokio::test]
async fn from_new_api() {
    let begun = Clock::machine().now();
    let tables = r#"
        create table users (id bigserial primary key, username text, status int default 1, quota int default 0, used_quota int default 0,
            "group" varchar(64) default 'default', deleted_at timestamptz);
        create table user_subscriptions (id bigserial primary key, user_id bigint, plan_id bigint, amount_total bigint not null default 0,
            amount_used bigint not null default 0, start_time bigint, end_time bigint, status varchar(32), source varchar(32) default 'order',
            last_reset_time bigint default 0, next_reset_time bigint default 0);
        insert into users (username, status, quota, deleted_at) values
            ('wallet', 1, 1000499, null), ('both', 1, 400, null), ('disabled', 2, 9999999, null), ('deleted', 1, 9999999, now());
        insert into user_subscriptions (user_id, plan_id, amount_total, amount_used, end_time, status, next_reset_time) values
            (2, 1, 5000000, 1001, extract(epoch from now() + interval '60 days')::bigint, 'active', extract(epoch from now() + interval '5 days')::bigint),
            (2, 2, 500000, 250000, extract(epoch from now() + interval '20 days')::bigint, 'active', 0),
            (2, 2, 9000000, 0, extract(epoch from now() - interval '1 day')::bigint, 'active', 0),
            (2, 2, 9000000, 0, extract(epoch from now() + interval '1 day')::bigint, 'cancelled', 0);"#;
    let dev = moved(tables, "new-api", "2 users imported, 2 grants, 0 changed level, 0 unchanged, 0 bad lines").await;
    let wallet = quota(&dev, "1").await;
    assert_eq!((&wallet["membershipLevel"], &wallet["monthlyUsed"]), (&json!("free"), &json!(0)));
    assert_eq!(grants(&wallet), [2_000]);
    let both = quota(&dev, "2").await;
    assert_eq!((&both["membershipLevel"], &both["monthlyUsed"]), (&json!("plus"), &json!(3)));
    assert_eq!(grants(&both), [500], "less than 1 AP is left in the wallet");
    assert!(resets_in(&both, 5, begun), "{both}");
}

#[tokio::test]
async fn from_sub2api() {
    let tables = "
        create table groups (id bigserial primary key, name varchar(100) not null unique);
        create table users (id bigserial primary key, email varchar(255) not null unique, balance decimal(20, 8) not null default 0,
            status varchar(20) not null default 'active', deleted_at timestamptz);
        create table user_subscriptions (id bigserial primary key, user_id bigint not null references users (id), group_id bigint not null references groups (id),
            starts_at timestamptz not null, expires_at timestamptz not null, status varchar(20) not null default 'active',
            daily_window_start timestamptz, weekly_window_start timestamptz, monthly_window_start timestamptz,
            daily_usage_usd decimal(20, 10) not null default 0, weekly_usage_usd decimal(20, 10) not null default 0,
            monthly_usage_usd decimal(20, 10) not null default 0, unique (user_id, group_id));
        insert into groups (name) values ('Plus'), ('Pro');
        insert into users (email, balance, status) values ('a@example.com', 1.2349, 'active'), ('b@example.com', -3, 'active'), ('c@example.com', 9, 'disabled');
        insert into user_subscriptions (user_id, group_id, starts_at, expires_at, status, daily_window_start, weekly_window_start, monthly_window_start,
            daily_usage_usd, weekly_usage_usd, monthly_usage_usd) values
            (1, 1, now() - interval '5 days', now() + interval '25 days', 'active', now() - interval '2 days', now() - interval '5 days',
             now() - interval '5 days', 1, 2.0001, 3),
            (1, 2, now() - interval '5 days', now() + interval '3 days', 'active', null, null, null, 0, 0, 0);";
    let dev = moved(tables, "sub2api", "2 users imported, 1 grants, 0 changed level, 0 unchanged, 0 bad lines").await;
    let ann = quota(&dev, "1").await;
    assert_eq!((&ann["membershipLevel"], &ann["monthlyUsed"]), (&json!("plus"), &json!(3_000)));
    assert_eq!(["1d", "7d", "30d"].map(|window| used_in(&ann, window)), [json!(0), json!(2_001), json!(3_000)]);
    assert_eq!(grants(&ann), [1_234]);
    let bob = quota(&dev, "2").await;
    assert_eq!((&bob["membershipLevel"], grants(&bob)), (&json!("free"), Vec::new()));
}

#[tokio::test]
async fn from_a_table_of_credits() {
    let tables = "
        create table credits (id int primary key, user_id int, plan text, balance numeric, expires_at timestamptz);
        insert into credits values (1, 7, 'free', 80.9, null), (2, 7, 'free', 20, now() + interval '1 day'), (3, 7, 'free', 5, now() - interval '1 day'),
            (4, 8, 'plus', 0.5, null);";
    let dev =
        moved(tables, "A table of credits", "2 users imported, 2 grants, 0 changed level, 0 unchanged, 0 bad lines")
            .await;
    assert_eq!(grants(&quota(&dev, "7").await).iter().sum::<u64>(), 100);
    assert_eq!(quota(&dev, "8").await["membershipLevel"], "plus");
}
