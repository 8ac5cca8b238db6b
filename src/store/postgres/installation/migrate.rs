//! Applies the migrations, which are embedded in the program.

use sqlx::migrate::Migrator;

use crate::store::postgres::{Postgres, PostgresError};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

impl Postgres {
    /// Applies the missing migrations. Of several concurrent callers, one applies them.
    ///
    /// # Errors
    /// If Postgres is unavailable or refuses a migration. A refused migration is rolled back.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        MIGRATIONS.run(&self.pool).await.map_err(PostgresError::from)
    }

    /// Checks that every migration is applied.
    ///
    /// # Errors
    /// [`PostgresError::SchemaBehind`] if one is missing.
    pub async fn check_schema(&self) -> Result<(), PostgresError> {
        let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
        // The migrations table may be missing, so this query is not checked at compile time.
        let known: Option<bool> =
            sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&self.pool).await?;
        if known != Some(true) {
            return Err(PostgresError::SchemaBehind);
        }
        let applied: Option<i64> =
            sqlx::query_scalar("select max(version) from _sqlx_migrations where success").fetch_one(&self.pool).await?;
        if applied.is_none_or(|applied| applied < newest) { Err(PostgresError::SchemaBehind) } else { Ok(()) }
    }
}
