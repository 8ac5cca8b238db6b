//! What can go wrong between the gate and Postgres.

use sqlx::error::ErrorKind;

/// Why Postgres did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Postgres is away, too busy, or gave up a transaction for another one. Asking again makes sense.
    #[error("Postgres is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Postgres refused. Asking again changes nothing.
    #[error("Postgres refused: {0}")]
    Refused(#[source] sqlx::Error),
    /// A row says what no row can say.
    #[error("{table}.{column} of {row} is no valid value")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Which row.
        row: String,
    },
    /// The installation was set up otherwise.
    #[error(
        "this installation has {setting} = {stored}, and the configuration says {configured}: \
         it cannot be changed any more, set {setting} = {stored}"
    )]
    SettingMismatch {
        /// The setting.
        setting: &'static str,
        /// What Postgres has.
        stored: String,
        /// What the configuration has.
        configured: String,
    },
    /// The tables are older than this program.
    #[error("the database is behind this program: run `quota-gate migrate`")]
    SchemaBehind,
    /// A migration failed.
    #[error("migrating the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The connection is set up wrongly.
    #[error("{0}")]
    Unfit(String),
}

impl PostgresError {
    /// Asking again may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
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
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => false,
            _ => true,
        };
        if refused { Self::Refused(error) } else { Self::Unavailable(error) }
    }
}

/// The rows themselves are at fault (SQLSTATE class 22 or 23), so that leaving some out helps.
pub(in crate::store::postgres) fn is_about_data(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    let code = database.code().unwrap_or_default();
    code.starts_with("22") || code.starts_with("23") || database.kind() != ErrorKind::Other
}
