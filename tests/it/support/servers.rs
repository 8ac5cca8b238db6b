//! Private servers. One Postgres serves the whole test process, because making one takes a second; each test has a
//! database of its own in it. A redis-server takes 30 ms, so each test has one to itself. All of it is gone when the
//! process ends, however it ends.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quota_gate::{
    dev::{Durability, PostgresServer, RedisServer},
    store::postgres::{Postgres, PostgresOptions},
};
use sqlx::{Connection, Executor, PgConnection};

/// Migrated once; the database of each test is a copy of it.
const TEMPLATE: &str = "template_migrated";

/// A redis-server for one test.
pub(crate) fn redis() -> RedisServer {
    RedisServer::start_temporary(&scratch("redis")).expect("redis-server starts")
}

/// A Postgres for one test alone, which may kill it.
pub(crate) fn postgres() -> PostgresServer {
    PostgresServer::start(&scratch("postgres"), Durability::Temporary).expect("Postgres starts")
}

/// The URL of a fresh, migrated database in the shared server.
pub(crate) async fn database() -> String {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    static MIGRATED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(postgres)).await.expect("Postgres starts");
    MIGRATED.get_or_init(async || migrate_template(server).await).await;
    copy_of_template(server).await
}

/// The same in a server of one's own.
pub(crate) async fn database_on(server: &PostgresServer) -> String {
    migrate_template(server).await;
    copy_of_template(server).await
}

async fn migrate_template(server: &PostgresServer) {
    execute(&server.url("postgres"), &format!("create database {TEMPLATE}")).await;
    let postgres = Postgres::new(&PostgresOptions {
        url: server.url(TEMPLATE),
        connections_max: 1,
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(30),
    })
    .expect("the URL is one");
    postgres.migrate().await.expect("the migrations apply");
    // The template can be copied once nobody is connected to it.
    postgres.close().await;
}

async fn copy_of_template(server: &PostgresServer) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    execute(&server.url("postgres"), &format!("create database {name} template {TEMPLATE}")).await;
    server.url(&name)
}

/// Runs one statement that takes no parameters.
pub(crate) async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the database answers");
    connection.execute(sqlx::AssertSqlSafe(statement)).await.expect("the statement runs");
    connection.close().await.expect("the connection closes");
}

/// A folder that whoever gets it removes at the end.
fn scratch(name: &str) -> PathBuf {
    tempfile::Builder::new().prefix(&format!("quota-gate-{name}-")).tempdir().expect("a folder can be made").keep()
}
