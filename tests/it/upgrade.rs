//! An upgrade from the last release: this program continues with the tables, records and journal of release 0.1.0.
//!
//! `tests/fixtures/0.1.0` was written by that release: a dump of Postgres, and of each key of Redis. Half of the
//! charges were not flushed yet, and one hold was open.

use std::{fs, path::PathBuf, process::Command};

use chrono::DateTime;
use quota_gate::{
    domain::{clock::Clock, decision::Decision},
    gate::Commit,
};
use serde_json::{Value, json};

use crate::support::{World, consume, eventually, postgres, reserve, scratch, user};

/// The moment at which the installation of the fixture stopped.
const NOW: &str = "2026-11-26T12:00:00Z";

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/0.1.0")).join(file)
}

/// Writes the fixture, at a release: `cargo test -p quota-gate-server --test it upgrade -- --ignored`.
#[tokio::test]
#[ignore = "writes the fixture of a release"]
async fn write_the_fixture() {
    let world = World::at(NOW, "UTC").await;
    let gate = world.gate().await;
    for (who, ap) in [("alice", 5), ("bob", 7), ("3f1e6a52-8d1c-4a0e-9a64-0d8f0d6f3c11", 9)] {
        assert!(gate.charges(who, ap).await);
    }
    gate.flush_and_verify().await;
    for (who, ap) in [("alice", 11), ("carol", 13), ("bob", 17)] {
        assert!(gate.charges(who, ap).await);
    }
    let Decision::Allowed(held) = gate.gate.reserve(reserve("alice", 20, 900)).await.unwrap() else { panic!("denied") };
    let mut connection = world.redis_connection().await;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("qg:*").query_async(&mut connection).await.unwrap();
    let mut dumped = Vec::new();
    for key in keys {
        let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
        dumped.push(json!({"key": hex(&key), "value": hex(&value)}));
    }
    let state = json!({"keys": dumped, "hold": gate.gate.reservation_id(&held.reservation)});
    fs::create_dir_all(fixture("")).unwrap();
    fs::write(fixture("redis.json"), serde_json::to_string_pretty(&state).unwrap() + "\n").unwrap();
    let dump =
        Command::new("pg_dump").args(["--inserts", "--no-owner", "--no-privileges"]).arg(&world.database).output();
    let dump = String::from_utf8(dump.unwrap().stdout).unwrap();
    // Newer programs write lines that older ones do not understand.
    let lines = dump.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    fs::write(fixture("postgres.sql"), lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn an_installation_of_the_last_release_continues_and_adds_up() {
    let server = postgres().await;
    server.create_database("upgraded").await.unwrap();
    let database = server.url("upgraded");
    let log = fs::File::create(scratch("psql")).unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(fixture("postgres.sql")).arg(&database).stdout(log);
    assert!(psql.status().unwrap().success());
    crate::support::migrate(&database).await;

    let clock = Clock::manual(NOW.parse::<DateTime<_>>().unwrap());
    let world = World::on(database, clock, true, "UTC").await;
    world.set_time(NOW).await;
    let state: Value = serde_json::from_str(&fs::read_to_string(fixture("redis.json")).unwrap()).unwrap();
    let mut connection = world.redis_connection().await;
    for key in state["keys"].as_array().unwrap() {
        let bytes = |member: &str| unhex(key[member].as_str().unwrap());
        let restore = redis::cmd("RESTORE").arg(bytes("key")).arg(0).arg(bytes("value")).to_owned();
        restore.exec_async(&mut connection).await.unwrap();
    }

    let gate = world.gate().await;
    // Each charge of the journal is in the log once, also those that were not flushed.
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 5 + 7 + 9 + 11 + 13 + 17);
    assert_eq!(gate.gate.quota(&user("bob")).await.unwrap().used.get(), 24);
    // The hold that was open is settled.
    let id = state["hold"].as_str().unwrap();
    gate.gate.commit(id, Commit::default()).await.unwrap();
    eventually("the hold is charged", async || gate.gate.quota(&user("alice")).await.unwrap().used.get() == 36).await;
    assert!(matches!(gate.gate.consume(consume("alice", 64)).await.unwrap(), Decision::Allowed(_)));
    assert!(matches!(gate.gate.consume(consume("alice", 1)).await.unwrap(), Decision::Denied(_)));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn databases_whose_migrations_had_other_comments_are_accepted() {
    let world = World::new().await;
    // What an unreleased build recorded for its text of 0003_chat_quotas.sql.
    let older = "c50022e23310539c6786d4ca65f52c9e5f5f704bf7c2f607904b9817ec6cd23e26f700d30794c84ef6bdeac5171cf90d";
    let recorded = format!("update _sqlx_migrations set checksum = decode('{older}', 'hex') where version = 3");
    crate::support::execute(&world.database, &recorded).await;
    crate::support::migrate(&world.database).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
