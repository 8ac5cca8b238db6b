//! One Postgres for all tests of the process, with a migrated database for each.
//!
//! The server is held by no runtime (its handle is a plain process and a pipe), so that it does not end with the test
//! that happened to need it first.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use quota_gate::store::postgres::{Postgres, PostgresOptions};
use quota_gate_dev::{Durability, Lifetime, PostgresServer, PostgresServerOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;

use super::scratch;

/// Migrated once; the database of each test is a copy of it.
const TEMPLATE: &str = "template_migrated";

/// The URL of a database for one test, with all migrations and no rows.
pub(crate) async fn database() -> String {
    static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();
    let shared = async || {
        let server = postgres().await;
        migrate_template(&server).await;
        server
    };
    copy(SHARED.get_or_init(shared).await).await
}

/// Starts a Postgres for one test alone, which may kill it. Takes a second; most tests want [`database`].
pub(crate) async fn postgres() -> PostgresServer {
    let options = PostgresServerOptions {
        durability: Durability::Memory,
        lifetime: Lifetime::Scratch,
        ..PostgresServerOptions::default()
    };
    PostgresServer::start(&scratch("postgres"), options).await.expect("Postgres starts")
}

/// The same as [`database`], in a server of one's own.
pub(crate) async fn migrated_copy(server: &PostgresServer) -> String {
    migrate_template(server).await;
    copy(server).await
}

/// Runs one statement that takes no parameters.
pub(crate) async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the database answers");
    connection.execute(AssertSqlSafe(statement)).await.expect("the statement runs");
    connection.close().await.expect("the connection closes");
}

async fn copy(server: &PostgresServer) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    server.create_database_from(&name, TEMPLATE).await.expect("the template can be copied");
    server.url(&name)
}

async fn migrate_template(server: &PostgresServer) {
    server.create_database(TEMPLATE).await.expect("a database can be made");
    migrate(&server.url(TEMPLATE)).await;
}

/// Makes the tables.
pub(crate) async fn migrate(url: &str) {
    let postgres = Postgres::new(&PostgresOptions {
        url: url.to_owned(),
        connections_max: 1,
        acquire_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_mins(1),
    })
    .expect("the URL is one");
    postgres.migrate().await.expect("the migrations apply");
    // The template can be copied once nobody is connected to it.
    postgres.close().await;
}
