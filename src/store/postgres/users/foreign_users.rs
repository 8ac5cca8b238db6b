//! Reads users from another database with the product's own query, for an import.

use std::str::FromStr;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgConnectOptions};
use tokio::sync::mpsc;

use crate::store::postgres::PostgresError;

/// An unchecked row of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignUser {
    /// Column `user`.
    pub user: Option<String>,
    /// Column `level`.
    pub level: Option<String>,
    /// Column `used`; 0 if there is none.
    pub used: i64,
    /// Column `anchor`; `None` if there is none.
    pub anchor: Option<i64>,
    /// Column `windows`, as JSON; `None` if there is none.
    pub windows: Option<String>,
    /// Column `grants`, as JSON; `None` if there is none.
    pub grants: Option<String>,
}

/// Sends the rows of a query to a channel: columns `user`, `level` and optionally `used`, `anchor`, `windows` and
/// `grants`. The transaction is read only, so the query cannot change anything.
///
/// # Errors
/// If the database is unavailable or refuses the query.
pub async fn read_foreign_users(url: &str, query: &str, rows: mpsc::Sender<ForeignUser>) -> Result<(), PostgresError> {
    let options = PgConnectOptions::from_str(url)?.application_name("quota-gate").extra_float_digits(None);
    let mut connection = PgConnection::connect_with(&options).await?;
    sqlx::raw_sql("begin read only").execute(&mut connection).await?;
    // Accepts any column types, and missing optional columns. The line break ends a comment in the query.
    let wrapped = format!(
        r#"select row ->> 'user' as "user", row ->> 'level' as level, coalesce((row ->> 'used')::bigint, 0) as used,
                (row ->> 'anchor')::bigint as anchor, row ->> 'windows' as windows, row ->> 'grants' as grants
         from (select to_jsonb(given) as row from ({query}
              ) as given) as rows"#
    );
    // Unnamed, because behind a pooler the name may be taken.
    let mut found = sqlx::query(AssertSqlSafe(wrapped)).persistent(false).fetch(&mut connection);
    while let Some(row) = found.try_next().await? {
        let user = ForeignUser {
            user: row.try_get(0)?,
            level: row.try_get(1)?,
            used: row.try_get(2)?,
            anchor: row.try_get(3)?,
            windows: row.try_get(4)?,
            grants: row.try_get(5)?,
        };
        if rows.send(user).await.is_err() {
            // The receiver was dropped.
            break;
        }
    }
    Ok(())
}
