//! The gate's Redis user and Postgres role have no permissions beyond their work.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::process::Dev;

#[tokio::test]
async fn the_gates_redis_user_cannot_destroy_data_or_access_other_keys() {
    let dev = Dev::start().await;
    let client = redis::Client::open(dev.text("redisUrl")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for command in [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "CONFIG GET *",
        "CONFIG SET maxmemory-policy allkeys-lru",
        "SHUTDOWN",
        "REPLICAOF NO ONE",
        "ACL LIST",
        "MONITOR",
        "EVAL return 0",
        "FUNCTION DELETE x",
        "SCRIPT FLUSH",
        "GET elsewhere",
        "SET elsewhere x",
        "LPUSH qg:{00}:x y",
        "RESTORE qg:{00}:x 0 x",
        "RENAME qg:{00}:gen qg:{00}:x",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let command_line = redis::cmd(words[0]).arg(&words[1..]).to_owned();
        let refused = command_line.exec_async(&mut connection).await.unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"), "{command}: {refused}");
    }
}

#[tokio::test]
async fn the_gates_postgres_role_cannot_change_the_log_or_the_tables() {
    let dev = Dev::start().await;
    let mut connection = PgConnection::connect(dev.text("databaseUrl")).await.unwrap();
    for statement in [
        "delete from chat_usage_logs",
        "update chat_usage_logs set ap_used = 0",
        "truncate chat_usage_logs",
        "delete from user_changes",
        "update user_changes set changed_by = 'nobody'",
        "delete from usage_days",
        "drop table chat_usage_logs",
        "delete from chat_quotas",
        "alter table chat_quotas add column x int",
        "create table mine (x int)",
        "create role mallory",
        "alter role quota_gate superuser",
        "copy chat_quotas to program 'cat'",
        "select digest from forgotten_users",
        "insert into forgotten_users values ('x', null, now())",
        "delete from forgotten_users",
        "update _sqlx_migrations set success = false",
        "delete from flush_watermarks",
    ] {
        let refused = connection.execute(AssertSqlSafe(statement)).await.unwrap_err();
        let code = refused.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
        assert!(code == "42501", "{statement}: {refused}");
    }
}
