//! How statements reach Postgres, and the settings of the sessions in which they run.
//!
//! Settings at the start of a session are sent as start-up options. A pooler refuses or drops those, and a setting made
//! later may be lost with the next transaction. So the options include a mark, [`DIRECT`]: a session that has it has
//! the other settings too. Otherwise every transaction sets them itself. Either way, each connection is verified before
//! it is used.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgConnectOptions};

use super::Kind;

/// How statements reach Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Each connection is one session of the server.
    Direct,
    /// A pooler such as PgBouncer assigns server sessions, perhaps another one for each transaction.
    Pooled,
}

/// A setting that a session has only if it received the start-up options.
const DIRECT: &str = "quota_gate.direct";

/// Far longer than any transaction of the gate pauses between two statements.
const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(5);

/// What reads the settings that matter in the session of a connection.
const READ_SETTINGS: &str = "select current_setting('synchronous_commit'), \
                             coalesce(current_setting('quota_gate.direct', true), '')";

/// The settings of the gate's sessions.
pub(super) struct Sessions {
    connect: PgConnectOptions,
    settings: [(&'static str, String); 4],
}

impl Sessions {
    pub(super) fn new(connect: PgConnectOptions, statement_timeout: Duration) -> Self {
        let settings = [
            ("statement_timeout", statement_timeout.as_millis().to_string()),
            // A trim follows the commit of a flush, so the rows must be on disk by then.
            ("synchronous_commit", "on".to_owned()),
            // A gate that hangs in a transaction must not keep its locks.
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MAX.as_millis().to_string()),
            ("timezone", "UTC".to_owned()),
        ];
        // PgBouncer refuses this option of the driver; every supported Postgres prints floats exactly without it.
        Self { connect: connect.extra_float_digits(None), settings }
    }

    /// Returns the options with which connections are made.
    pub(super) fn options(&self, route: Route) -> PgConnectOptions {
        let connect = self.connect.clone();
        match route {
            Route::Direct => connect.options(self.settings.clone()).options([(DIRECT, "on")]),
            Route::Pooled => connect,
        }
    }

    /// Returns the statements that begin a transaction.
    pub(super) fn begin(&self, route: Route, kind: Kind) -> String {
        let begin = match kind {
            Kind::ReadWrite => "begin isolation level read committed read write",
            Kind::Snapshot => "begin isolation level repeatable read read only",
        };
        match route {
            Route::Direct => begin.to_owned(),
            Route::Pooled => {
                let settings = self.settings.iter().map(|(name, value)| format!("; set local {name} = '{value}'"));
                // Another client of the same server session may have set it.
                let search_path = "; set local search_path to default".to_owned();
                [begin.to_owned(), search_path].into_iter().chain(settings).collect()
            }
        }
    }

    /// Connects with start-up options, and finds out whether they reached the session.
    pub(super) async fn find_route(&self) -> Result<Route, sqlx::Error> {
        match PgConnection::connect_with(&self.options(Route::Direct)).await {
            Ok(mut connection) => {
                let (durable, direct) = read_settings(&mut connection, READ_SETTINGS).await?;
                connection.close().await?;
                if direct {
                    return require_durable(durable).map(|()| Route::Direct);
                }
            }
            Err(error) if refuses_options(&error) => {}
            Err(error) => return Err(error),
        }
        if self.connect.get_options().is_some() {
            return Err(unfit(
                "DATABASE_URL has `options`, which the pooler does not pass on: remove them, and set their values by \
                 `alter role … set …`",
            ));
        }
        let mut connection = PgConnection::connect_with(&self.options(Route::Pooled)).await?;
        self.verify(&mut connection, Route::Pooled).await?;
        connection.close().await?;
        Ok(Route::Pooled)
    }

    /// Checks that the settings are in force on a connection.
    pub(super) async fn verify(&self, connection: &mut PgConnection, route: Route) -> Result<(), sqlx::Error> {
        let (durable, direct) = match route {
            Route::Direct => read_settings(connection, READ_SETTINGS).await?,
            Route::Pooled => {
                let begin = self.begin(route, Kind::ReadWrite);
                read_settings(connection, &format!("{begin}; {READ_SETTINGS}; commit")).await?
            }
        };
        if route == Route::Direct && !direct {
            return Err(unfit(
                "this connection leads through a pooler, but the first one was direct: restart the gate",
            ));
        }
        require_durable(durable)
    }
}

fn require_durable(durable: bool) -> Result<(), sqlx::Error> {
    let problem = "synchronous_commit cannot be set to on, so a confirmed commit may be lost";
    if durable { Ok(()) } else { Err(unfit(problem)) }
}

/// Returns whether commits are durable, and whether the session received the start-up options. The statements are not
/// prepared, so they leave nothing in the session.
async fn read_settings(connection: &mut PgConnection, statements: &str) -> Result<(bool, bool), sqlx::Error> {
    let row = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).fetch_one(connection).await?;
    Ok((row.try_get::<String, _>(0)? == "on", row.try_get::<String, _>(1)? == "on"))
}

/// Returns whether a pooler refuses the start-up options: protocol violation (08P01) or unsupported feature (0A000).
fn refuses_options(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    matches!(database.code().as_deref(), Some("08P01" | "0A000"))
}

fn unfit(problem: &str) -> sqlx::Error {
    sqlx::Error::Configuration(problem.into())
}
