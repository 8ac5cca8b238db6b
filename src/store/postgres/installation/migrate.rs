//! Applies the migrations, which are embedded in the program.

use sqlx::migrate::Migrator;

use super::reworded_migrations::REWORDED;
use crate::store::postgres::{Postgres, PostgresError};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

impl Postgres {
    /// Applies the missing migrations. Of several concurrent callers, one applies them.
    ///
    /// # Errors
    /// If Postgres is unavailable or refuses a migration. A refused migration is rolled back.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        self.accept_reworded_migrations().await?;
        MIGRATIONS.run(&self.pool).await.map_err(PostgresError::from)
    }

    /// Replaces the recorded checksums of migrations that differ from those of the program in comments only.
    async fn accept_reworded_migrations(&self) -> Result<(), PostgresError> {
        if !self.has_migrations_table().await? {
            return Ok(());
        }
        for (version, older) in REWORDED {
            let Some(migration) = MIGRATIONS.iter().find(|migration| migration.version == version) else { continue };
            sqlx::query(
                "update _sqlx_migrations
                 set checksum = $1
                 where version = $2
                   and checksum = decode($3, 'hex')",
            )
            .bind(&*migration.checksum)
            .bind(version)
            .bind(older)
            .execute(&self.pool)
            .await?;
        }
        Ok(())
    }

    /// The migrations table may be missing, so queries that read it are not checked at compile time.
    async fn has_migrations_table(&self) -> Result<bool, PostgresError> {
        let exists: Option<bool> =
            sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&self.pool).await?;
        Ok(exists == Some(true))
    }

    /// Checks that every migration is applied.
    ///
    /// # Errors
    /// [`PostgresError::SchemaBehind`] if one is missing.
    pub async fn check_schema(&self) -> Result<(), PostgresError> {
        let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
        if !self.has_migrations_table().await? {
            return Err(PostgresError::SchemaBehind);
        }
        let applied: Option<i64> =
            sqlx::query_scalar("select max(version) from _sqlx_migrations where success").fetch_one(&self.pool).await?;
        if applied.is_none_or(|applied| applied < newest) { Err(PostgresError::SchemaBehind) } else { Ok(()) }
    }
}
