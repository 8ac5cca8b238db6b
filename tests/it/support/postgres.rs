//! One Postgres for all tests of the process, with a migrated database for each.
//!
//! The server is held by no runtime (its handle is a plain process and a pipe), so that it does not end with the test
//! that happened to need it first.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use quota_gate::dev::{Durability, Lifetime, PostgresServer, PostgresServerOptions};
use sqlx::{Connection, PgConnection, migrate::Migrator};
use tokio::sync::OnceCell;

use super::scratch;

/// Migrated once; the database of each test is a copy of it.
const TEMPLATE: &str = "template_migrated";

/// A database of one's own, with all migrations and no rows.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// `postgres://…`
    pub url: String,
}

/// Makes a database for one test.
pub async fn database() -> TestDatabase {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = shared().await;
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    server.create_database_from(&name, TEMPLATE).await.unwrap();
    TestDatabase { url: server.url(&name) }
}

/// Starts a Postgres for one test alone, which may kill it. Takes a second; most tests want [`database`].
pub async fn postgres() -> PostgresServer {
    let options = PostgresServerOptions {
        durability: Durability::Memory,
        lifetime: Lifetime::Scratch,
        ..PostgresServerOptions::default()
    };
    PostgresServer::start(&scratch("postgres"), options).await.unwrap()
}

async fn shared() -> &'static PostgresServer {
    static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();
    SHARED
        .get_or_init(async || {
            let server = postgres().await;
            server.create_database(TEMPLATE).await.unwrap();
            migrate(&server.url(TEMPLATE)).await;
            server
        })
        .await
}

async fn migrate(url: &str) {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut connection = PgConnection::connect(url).await.unwrap();
    if migrations.exists() {
        Migrator::new(migrations).await.unwrap().run(&mut connection).await.unwrap();
    }
    // The template can be copied once nobody is connected to it.
    connection.close().await.unwrap();
}
