//! Applies the migrations, which are embedded in the program.
//!
//! Each migration is one transaction, and a lock of that transaction lets one caller at a time apply it: a lock of the
//! session would outlive its client behind a pooler. The table `_sqlx_migrations` is that of sqlx.

use std::{collections::HashMap, time::Duration};

use sqlx::{
    Executor, Row,
    migrate::{MigrateError, Migration, Migrator},
};
use tokio::time::sleep;

use super::reworded_migrations::REWORDED;
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Lock of the program that migrates.
const LOCK: i64 = 0x6d69_6772_6174_6521;
/// A migration that waits for a lock keeps every later statement on the table waiting. So it waits for a short time,
/// and tries again.
const LOCK_TIMEOUT: &str = "500ms";
/// Tries, if another session keeps a table locked: about five minutes.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_secs(3);

/// The migrations in the database.
struct Applied {
    checksums: HashMap<i64, Vec<u8>>,
    newest: Option<i64>,
}

impl Postgres {
    /// Applies the missing migrations. Of several concurrent callers, one applies them. Accepts migrations of a newer
    /// program if the tables are compatible with this one.
    ///
    /// # Errors
    /// If Postgres is unavailable or refuses a migration. A refused migration is rolled back.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        let mut tries = 1;
        loop {
            match self.apply_next_migration().await {
                Ok(true) => tries = 1,
                Ok(false) => return Ok(()),
                Err(error) if error.is_lock_timeout() && tries < TRIES => {
                    tracing::warn!(%error, "a migration waits for another session's lock; trying again");
                    tries += 1;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Applies the first missing migration. Returns false if there is none.
    async fn apply_next_migration(&self) -> Result<bool, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        let settings = format!("set local statement_timeout = 0; set local lock_timeout = '{LOCK_TIMEOUT}'");
        transaction.execute(sqlx::AssertSqlSafe(settings)).await?;
        sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut transaction).await?;
        transaction
            .execute(
                "create table if not exists _sqlx_migrations (
                     version bigint primary key,
                     description text not null,
                     installed_on timestamptz not null default now(),
                     success boolean not null,
                     checksum bytea not null,
                     execution_time bigint not null
                 )",
            )
            .await?;
        accept_reworded(&mut transaction).await?;
        let applied = Applied::read(&mut transaction).await?;
        applied.check(&mut transaction).await?;
        let Some(migration) = MIGRATIONS.iter().find(|migration| !applied.has(migration)) else {
            transaction.commit().await?;
            return Ok(false);
        };
        transaction
            .execute(migration.sql.clone())
            .await
            .map_err(|error| MigrateError::ExecuteMigration(error, migration.version))?;
        sqlx::query(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values ($1, $2, true, $3, -1)",
        )
        .bind(migration.version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Checks that every migration is applied, and that newer ones are compatible with this program.
    ///
    /// # Errors
    /// [`PostgresError::SchemaBehind`] if one is missing, [`PostgresError::SchemaAhead`] if the tables need a newer
    /// program.
    pub async fn check_schema(&self) -> Result<(), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        if !exists(&mut transaction, "_sqlx_migrations").await? {
            return Err(PostgresError::SchemaBehind);
        }
        let applied = Applied::read(&mut transaction).await?;
        applied.check_newer(&mut transaction).await?;
        transaction.commit().await?;
        if MIGRATIONS.iter().all(|migration| applied.has(migration)) {
            Ok(())
        } else {
            Err(PostgresError::SchemaBehind)
        }
    }
}

impl Applied {
    async fn read(transaction: &mut Transaction<'_>) -> Result<Self, PostgresError> {
        let rows =
            sqlx::query("select version, success, checksum from _sqlx_migrations").fetch_all(&mut *transaction).await?;
        let mut checksums = HashMap::new();
        for row in rows {
            let version: i64 = row.try_get("version")?;
            if !row.try_get::<bool, _>("success")? {
                return Err(MigrateError::Dirty(version).into());
            }
            checksums.insert(version, row.try_get("checksum")?);
        }
        let newest = checksums.keys().max().copied();
        Ok(Self { checksums, newest })
    }

    fn has(&self, migration: &Migration) -> bool {
        self.checksums.contains_key(&migration.version)
    }

    /// Checks that the migrations of this program and of the database are the same as far as both know them.
    async fn check(&self, transaction: &mut Transaction<'_>) -> Result<(), PostgresError> {
        self.check_newer(transaction).await?;
        let known: HashMap<i64, &Migration> =
            MIGRATIONS.iter().map(|migration| (migration.version, migration)).collect();
        for (version, checksum) in &self.checksums {
            match known.get(version) {
                Some(migration) if *migration.checksum != **checksum => {
                    return Err(MigrateError::VersionMismatch(*version).into());
                }
                None if *version < newest_known() => return Err(MigrateError::VersionMissing(*version).into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that migrations of a newer program are compatible with this one.
    async fn check_newer(&self, transaction: &mut Transaction<'_>) -> Result<(), PostgresError> {
        let known = newest_known();
        let Some(newest) = self.newest.filter(|newest| *newest > known) else { return Ok(()) };
        let needed: i64 = if exists(transaction, "schema_compatibility").await? {
            sqlx::query_scalar("select programs_from from schema_compatibility").fetch_one(&mut *transaction).await?
        } else {
            newest
        };
        if needed <= known { Ok(()) } else { Err(PostgresError::SchemaAhead { newest, needed, known }) }
    }
}

fn newest_known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The tables may be missing, so queries that read them are not checked at compile time.
async fn exists(transaction: &mut Transaction<'_>, table: &str) -> Result<bool, PostgresError> {
    let exists: Option<bool> =
        sqlx::query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(&mut *transaction).await?;
    Ok(exists == Some(true))
}

/// Replaces the recorded checksums of migrations that differ from those of the program in comments only.
async fn accept_reworded(transaction: &mut Transaction<'_>) -> Result<(), PostgresError> {
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
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}
