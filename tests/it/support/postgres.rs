//! One Postgres for all tests of the process, with a migrated database for each test.
//!
//! The server depends on no runtime (its handle is a process and a pipe), so it does not end with the first test that
//! uses it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use quota_gate::store::postgres::{Postgres, PostgresOptions};
use quota_gate_dev::{Durability, Lifetime, PostgresServer, PostgresServerOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;

use super::scratch;

/// Database that is migrated once and copied for each test.
const TEMPLATE: &str = "template_migrated";

/// Returns the URL of a database for one test, with all migrations and no rows.
pub(crate) async fn database() -> String {
    static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();
    let shared = async || {
        let server = postgres().await;
        migrate_template(&server).await;
        server
    };
    copy(SHARED.get_or_init(shared).await).await
}

/// Starts a Postgres for one test, which may kill it. Takes a second; most tests need only [`database`].
pub(crate) async fn postgres() -> PostgresServer {
    PostgresServer::start(&scratch("postgres"), postgres_options()).await.expect("Postgres starts")
}

/// Options of a server for tests.
pub(crate) fn postgres_options() -> PostgresServerOptions {
    PostgresServerOptions {
        durability: Durability::Memory,
        lifetime: Lifetime::Scratch,
        ..PostgresServerOptions::default()
    }
}

/// Like [`database`], on this server.
pub(crate) async fn migrated_copy(server: &PostgresServer) -> String {
    migrate_template(server).await;
    copy(server).await
}

/// Runs one statement without parameters.
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
    server.create_database(TEMPLATE).await.expect("a database can be created");
    migrate(&server.url(TEMPLATE)).await;
}

/// Creates the tables.
pub(crate) async fn migrate(url: &str) {
    let postgres = Postgres::new(&PostgresOptions {
        url: url.to_owned(),
        connections_max: 1,
        acquire_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_mins(1),
    })
    .expect("a valid URL");
    postgres.migrate().await.expect("the migrations apply");
    // Postgres copies a template only while it has no connections.
    postgres.close().await;
}
