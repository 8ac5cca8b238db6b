//! A rollback: the program runs on tables that a newer program has migrated, if these are compatible.

use std::process::{Command, Output};

use reqwest::StatusCode;
use serde_json::json;

use super::process::{BINARY, Serve};
use crate::support::{World, execute};

fn migrate(database: &str) -> Output {
    Command::new(BINARY).arg("migrate").env("DATABASE_URL", database).output().unwrap()
}

/// What a newer program's migration leaves behind.
const NEWER: &str = "alter table chat_quotas add column of_a_newer_program integer not null default 0;
    insert into _sqlx_migrations (version, description, success, checksum, execution_time)
    values (9001, 'of a newer program', true, '\\x00', 1)";

#[tokio::test]
async fn the_program_starts_on_newer_tables_that_are_compatible() {
    let world = World::new().await;
    execute(&world.database, NEWER).await;
    // As deploy/compose does: `migrate`, then `serve`.
    let output = migrate(&world.database);
    assert!(output.status.success(), "{output:?}");
    let gate = Serve::on(&world.database, &world.redis.url(), &[]).await;
    let body = json!({"userUuid": "alice", "sessionId": "s", "ap": 5});
    assert_eq!(gate.post("/api/chat/quota/consume", body).await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_program_refuses_newer_tables_that_need_a_newer_program() {
    let world = World::new().await;
    execute(&world.database, NEWER).await;
    execute(&world.database, "update schema_compatibility set programs_from = 9001").await;
    let refused = [
        String::from_utf8_lossy(&migrate(&world.database).stderr).into_owned(),
        Serve::refused(&world.database, &world.redis.url(), &[]),
    ];
    for refused in refused {
        assert!(refused.contains("its tables need a program with migration 9001"), "{refused}");
        assert!(refused.contains("run the newer program"), "{refused}");
    }
    // A migration in between that this program does not know is no newer one.
    execute(&world.database, "update schema_compatibility set programs_from = 1").await;
    execute(&world.database, "update _sqlx_migrations set checksum = '\\x00' where version = 5").await;
    let output = migrate(&world.database);
    assert!(String::from_utf8_lossy(&output.stderr).contains("migration 5"), "{output:?}");
}
