//! The sub-commands, run on the stores of a running gate.

use std::{fs, process::Output};

use reqwest::Method;
use serde_json::json;

use super::process::{Dev, Serve, answer};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn import_takes_valid_lines_reports_invalid_ones_and_may_be_repeated() {
    let dev = Dev::start().await;
    // One user is already in Redis, so the new level must reach Redis.
    dev.post("/api/chat/quota/consume", json!({"userUuid": "hot", "sessionId": "s"})).await;
    let csv = dev.dir.join("users.csv");
    let good: Vec<String> = (0..7_000).map(|n| format!("user-{n},basic,{}", n % 50)).collect();
    let mut lines = format!("user,level,used\n{}\n", good.join("\n"));
    lines += "bad user,basic,1\nuser-x,gold,1\nuser-y,basic,-1\nuser-z,basic\nhot,plus,0\n";
    fs::write(&csv, lines).unwrap();
    let first = dev.command(&["import", csv.to_str().unwrap()]);
    assert_eq!(stdout(&first).trim(), "7000 users imported, 1 changed level, 0 unchanged, 4 bad lines");
    assert!(!first.status.success());
    let problems = stderr(&first);
    for (line, word) in [(7002, "userUuid"), (7003, "free, basic, plus, pro"), (7004, "used"), (7005, "fields")] {
        let found =
            problems.lines().any(|problem| problem.starts_with(&format!("line {line}: ")) && problem.contains(word));
        assert!(found, "line {line}: {problems}");
    }
    let again = dev.command(&["import", csv.to_str().unwrap()]);
    assert_eq!(stdout(&again).trim(), "0 users imported, 0 changed level, 7001 unchanged, 4 bad lines");

    let quota =
        async |user: &str| answer(dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", user)).await.1;
    assert_eq!(quota("user-49").await["monthlyUsed"], 49);
    assert_eq!(quota("hot").await["monthlyQuota"], 1000);
    let verified = dev.command(&["verify"]);
    assert!(verified.status.success(), "{}", stdout(&verified));
}

#[tokio::test]
async fn import_reads_ndjson() {
    let dev = Dev::start().await;
    let file = dev.dir.join("users.ndjson");
    fs::write(
        &file,
        "{\"user\":\"a\",\"level\":\"pro\",\"used\":5}\n\n{\"user\":\"b\"}\n{\"user\":\"c\",\"level\":\"free\"}\n",
    )
    .unwrap();
    let output = dev.command(&["import", file.to_str().unwrap()]);
    assert_eq!(stdout(&output).trim(), "2 users imported, 0 changed level, 0 unchanged, 1 bad lines");
    assert!(stderr(&output).contains("line 3: missing field `level`"), "{}", stderr(&output));
}

#[tokio::test]
async fn import_reads_a_query_and_applies_only_changes() {
    let dev = Dev::start().await;
    let product = crate::support::World::new().await;
    crate::support::execute(&product.database, "create table people (id int, plan text)").await;
    let users =
        "insert into people select n, case when n <= 10 then 'plus' else 'free' end from generate_series(1, 6000) n";
    crate::support::execute(&product.database, users).await;
    let query = "select 'p' || id as user, plan as level, id % 7 as used from people";
    let import = |query: &str| dev.command(&["import", "--from-postgres", &product.database, "--query", query]);
    assert_eq!(stdout(&import(query)).trim(), "6000 users imported, 0 changed level, 0 unchanged, 0 bad lines");
    crate::support::execute(&product.database, "update people set plan = 'pro' where id in (3, 4)").await;
    crate::support::execute(&product.database, "update people set plan = null where id = 5").await;
    let again = import("select 'p' || id as user, plan as level from people");
    assert_eq!(stdout(&again).trim(), "0 users imported, 2 changed level, 5997 unchanged, 1 bad lines");
    assert!(stdout(&dev.command(&["inspect", "p3"])).contains("pro"));
    for wrong in ["select 1 as nobody", "delete from people returning id", "selec"] {
        assert!(!import(wrong).status.success(), "{wrong}");
    }
    assert_eq!(product.number("select count(*) from people").await, 6000);
}

#[tokio::test]
async fn import_refuses_a_file_without_a_header_line() {
    let dev = Dev::start().await;
    let file = dev.dir.join("users.csv");
    fs::write(&file, "alice,pro,5\nbob,pro,5\n").unwrap();
    let output = dev.command(&["import", file.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("the first line must be `user,level`"), "{}", stderr(&output));
}

#[tokio::test]
async fn import_takes_only_the_valid_lines_of_forty_thousand() {
    let dev = Dev::start().await;
    let mut random = fastrand::Rng::with_seed(20_261_123);
    let (mut lines, mut good) = (vec!["user,level,used".to_owned()], 0);
    for number in 0..40_000 {
        let mut pick = |choices: [&'static str; 6]| choices[random.usize(..6)];
        let (middle, level) =
            (pick(["", "", " ", "{", "é", "'"]), pick(["free", "pro", "gold", "", "FREE", "free;drop"]));
        let used = pick(["5", "0", "-1", "1e3", "99999999999999999999", "5,5"]);
        good += usize::from(middle.is_empty() && ["free", "pro"].contains(&level) && ["5", "0"].contains(&used));
        lines.push(format!("us{middle}er-{number},{level},{used}"));
    }
    let file = dev.dir.join("mangled.csv");
    fs::write(&file, lines.join("\n")).unwrap();
    let output = dev.command(&["import", file.to_str().unwrap()]);
    let expected = format!("{good} users imported, 0 changed level, 0 unchanged, {} bad lines", 40_000 - good);
    assert_eq!(stdout(&output).trim(), expected);
    assert!(good > 100);
}

#[tokio::test]
async fn commands_refuse_another_number_of_partitions() {
    let dev = Dev::start().await;
    for command in [&["verify"][..], &["inspect", "alice"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_quota-gate"))
            .args(command)
            .env("DATABASE_URL", dev.text("databaseUrl"))
            .env("REDIS_URL", dev.text("redisUrl"))
            .env("QUOTA_GATE__QUOTA__PARTITIONS", "5")
            .output()
            .unwrap();
        assert!(stderr(&output).contains("set quota.partitions = 4"), "{command:?} {}", stderr(&output));
    }
}

#[tokio::test]
async fn verify_names_users_with_drift_and_fails() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 5})).await;
    crate::support::eventually("the charge is flushed", async || {
        stdout(&dev.command(&["verify"])).contains("0 events not flushed")
    })
    .await;
    assert!(dev.command(&["verify"]).status.success());
    crate::support::execute(
        dev.text("databaseUrl"),
        "update chat_quotas set monthly_used = 4 where user_uuid = 'alice'",
    )
    .await;
    let output = dev.command(&["verify"]);
    assert!(!output.status.success());
    assert!(stdout(&output).contains("drift: alice in 202"), "{}", stdout(&output));
}

#[tokio::test]
async fn inspect_shows_a_users_state_and_reset_reports_its_counts() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/reservations", json!({"userUuid": "alice", "sessionId": "s", "ap": 5})).await;
    let shown = stdout(&dev.command(&["inspect", "alice"]));
    for part in ["partition", "quota     100 AP, used 0, held 5", "hold      ", "postgres    updated"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(stdout(&dev.command(&["inspect", "nobody"])).contains("the user was never seen"));
    let reset = dev.command(&["reset"]);
    assert!(
        reset.status.success() && stdout(&reset).starts_with("0 rows reset, 0 batches failed"),
        "{}",
        stdout(&reset)
    );
}

#[tokio::test]
async fn every_error_says_what_to_do() {
    let dev = Dev::start().await;
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_quota-gate"))
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        stderr(&output)
    };
    let stores = [("DATABASE_URL", dev.text("databaseUrl")), ("REDIS_URL", dev.text("redisUrl"))];
    assert!(run(&["serve"], &[]).contains("set DATABASE_URL"));
    assert!(run(&["serve"], &stores[..1]).contains("set REDIS_URL"));
    let listen = ("QUOTA_GATE__SERVER__LISTEN", "127.0.0.1:0");
    assert!(
        run(&["serve"], &[stores[0], stores[1], listen])
            .contains("auth.reservation_secret is not set: create one with `openssl rand -hex 32`")
    );
    let secret = ("QUOTA_GATE__AUTH__RESERVATION_SECRET", "00112233445566778899aabbccddeeff");
    let with = |name, value| [stores[0], stores[1], listen, secret, (name, value)];
    assert!(run(&["serve"], &with("QUOTA_GATE__QUOTA__PARTITIONS", "9")).contains("set quota.partitions = 4"));
    assert!(run(&["serve"], &with("QUOTA_GATE__QUOTA__TIME_ZONE", "Mars/Base")).contains("is not a time zone"));
    assert!(run(&["serve"], &with("QUOTA_GATE__SERVER__PORT", "1")).contains("port"));
    assert!(run(&["token", "a b"], &[("QUOTA_GATE__AUTH__JWT_SECRET", "x")]).contains("1 to 128 characters"));
    let unmigrated = format!("{}/template1", dev.text("databaseUrl").strip_suffix("/postgres").unwrap());
    assert!(run(&["serve"], &[("DATABASE_URL", &unmigrated), stores[1], secret]).contains("run `quota-gate migrate`"));
}

#[tokio::test]
async fn a_redis_that_may_evict_keys_is_refused() {
    let redis = crate::support::redis().await;
    let mut connection =
        redis::Client::open(redis.operator_url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory-policy").arg("volatile-lru").exec_async(&mut connection).await.unwrap();
    let error = Serve::refused(&crate::support::database().await, &redis.url(), &[]);
    assert!(error.contains("volatile-lru") && error.contains("noeviction"), "{error}");
}

#[tokio::test]
async fn retention_drops_what_its_dry_run_lists() {
    let world = crate::support::World::new().await;
    crate::support::execute(&world.database, "select ensure_usage_log_partition('2024-05-01')").await;
    let retention = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quota-gate"));
        command.arg("retention").args(arguments).env("DATABASE_URL", &world.database).output().unwrap()
    };
    let count = "select count(*) from pg_class where relname = 'chat_usage_logs_202405'";
    let dry = retention(&["--dry-run"]);
    assert!(stdout(&dry).contains("would drop chat_usage_logs_202405"), "{}{}", stdout(&dry), stderr(&dry));
    assert_eq!(world.number(count).await, 1);
    assert!(!retention(&["--keep-months", "1"]).status.success(), "months that are still queried are kept");
    let done = retention(&["--keep-months", "2"]);
    assert!(stdout(&done).contains("dropped chat_usage_logs_202405"), "{}{}", stdout(&done), stderr(&done));
    assert_eq!(world.number(count).await, 0);
    assert!(stdout(&retention(&[])).starts_with("0 months"));
}
