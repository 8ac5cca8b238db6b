//! Errors of the Postgres store.

use sqlx::{error::ErrorKind, migrate::MigrateError};

use crate::domain::user_id::UserId;

/// An error of Postgres or of its data.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Postgres is unavailable, overloaded, or rolled back in favor of another transaction. A retry makes sense.
    #[error("Postgres is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// This process has no file descriptor for a connection.
    #[error("this process has no file descriptors left for a connection to Postgres: raise its limit (LimitNOFILE)")]
    Descriptors,
    /// Postgres refused the request. A retry changes nothing.
    #[error("Postgres refused the request: {0}")]
    Refused(#[source] sqlx::Error),
    /// The user was forgotten, so no row is created.
    #[error("user {0} was forgotten: `quota-gate forget --readmit` lets the id return")]
    Forgotten(UserId),
    /// A row has an invalid value.
    #[error("{table}.{column} of {row} has an invalid value")]
    Inconsistent {
        /// Table name.
        table: &'static str,
        /// Column name.
        column: &'static str,
        /// Key of the row.
        row: String,
    },
    /// The configuration contradicts a fixed setting.
    #[error(
        "the configuration has {setting} = {configured}, but this installation has {stored}, \
         which cannot be changed: set {setting} = {stored}"
    )]
    SettingMismatch {
        /// Setting name.
        setting: &'static str,
        /// Value in Postgres.
        stored: String,
        /// Value in the configuration.
        configured: String,
    },
    /// The tables are older than this program.
    #[error("the database schema is older than this program: run `quota-gate migrate`")]
    SchemaBehind,
    /// The tables need a newer program.
    #[error(
        "the database schema is newer than this program: its tables need a program with migration {needed}, and this one \
         ends with {known} (the database has {newest}): run the newer program"
    )]
    SchemaAhead {
        /// Newest migration in the database.
        newest: i64,
        /// Oldest migration with which a program must end.
        needed: i64,
        /// Newest migration of this program.
        known: i64,
    },
    /// A migration failed.
    #[error("migrating the database failed: {0}")]
    Migrate(#[from] MigrateError),
    /// Configuration or stored data is unusable.
    #[error("{0}")]
    Unfit(String),
}

impl PostgresError {
    /// Returns whether a retry may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Descriptors)
    }

    /// Returns whether another session held a lock for longer than the statement would wait.
    pub(in crate::store::postgres) fn is_lock_timeout(&self) -> bool {
        let (Self::Unavailable(error)
        | Self::Refused(error)
        | Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))) = self
        else {
            return false;
        };
        matches!(error, sqlx::Error::Database(database) if database.code().as_deref() == Some("55P03"))
    }

    pub(in crate::store::postgres) fn inconsistent(
        table: &'static str,
        column: &'static str,
        row: impl std::fmt::Display,
    ) -> Self {
        Self::Inconsistent { table, column, row: row.to_string() }
    }
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        let refused = match &error {
            // 08 connection, 40 rollback, 53 resources, 55P03 lock not available, 57 operator intervention
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                !(["08", "40", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "55P03")
            }
            // EMFILE and ENFILE.
            sqlx::Error::Io(io) if matches!(io.raw_os_error(), Some(24 | 23)) => return Self::Descriptors,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => false,
            sqlx::Error::Configuration(problem) => return Self::Unfit(problem.to_string()),
            _ => true,
        };
        if refused { Self::Refused(error) } else { Self::Unavailable(error) }
    }
}

/// Returns whether rows cause the error (SQLSTATE class 22 or 23), so leaving some out helps.
pub(in crate::store::postgres) fn is_about_data(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    let code = database.code().unwrap_or_default();
    code.starts_with("22") || code.starts_with("23") || database.kind() != ErrorKind::Other
}
