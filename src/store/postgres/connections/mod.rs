//! The connections to Postgres: a pool that works directly and behind a pooler, such as PgBouncer.
//!
//! On a direct connection, the server applies the gate's settings at the start of the session, and statements are
//! prepared once. A pooler may use another server session for each transaction. So behind one, every statement runs in
//! a transaction that begins with its settings, and statements are not named. The first use finds out which
//! ([`Route`]).

mod route;
mod transaction;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, TryFutureExt, TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Connection, Either, Execute, Executor, PgConnection, SqlSafeStr, SqlStr,
    postgres::{
        PgConnectOptions, PgPool, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres as Database,
    },
};
use tokio::{sync::OnceCell, time::timeout};

pub use self::route::Route;
use self::route::Sessions;
pub(in crate::store::postgres) use self::transaction::Transaction;

/// A pool of connections. Cheap to clone.
#[derive(Clone)]
pub(in crate::store::postgres) struct Connections {
    pool: PgPool,
    sessions: Arc<Sessions>,
    route: Arc<OnceCell<Route>>,
    acquire_timeout: Duration,
}

/// What a transaction sees and may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ReadWrite,
    /// Reads one snapshot.
    Snapshot,
}

impl Connections {
    /// Creates a pool that connects on first use.
    pub(in crate::store::postgres) fn new(
        connect: PgConnectOptions,
        statement_timeout: Duration,
        connections_max: u32,
        acquire_timeout: Duration,
    ) -> Self {
        let sessions = Arc::new(Sessions::new(connect, statement_timeout));
        let route = Arc::new(OnceCell::<Route>::new());
        let (verified, used) = (Arc::clone(&sessions), Arc::clone(&route));
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(acquire_timeout)
            .after_connect(move |connection, _| {
                let (sessions, route) = (Arc::clone(&verified), used.get().copied().unwrap_or(Route::Pooled));
                Box::pin(async move {
                    let checked = sessions.verify(connection, route).await;
                    checked.inspect_err(|error| tracing::error!(%error, "a connection to Postgres cannot be used"))
                })
            })
            .connect_lazy_with(sessions.options(Route::Pooled));
        Self { pool, sessions, route, acquire_timeout }
    }

    /// Returns how statements reach Postgres. Connects once to find out.
    pub(in crate::store::postgres) async fn route(&self) -> Result<Route, sqlx::Error> {
        let find = async || {
            let found = timeout(self.acquire_timeout, self.sessions.find_route());
            let route = found.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
            self.pool.set_connect_options(self.sessions.options(route));
            if route == Route::Pooled {
                tracing::info!("Postgres is behind a pooler: every statement runs in a transaction");
            }
            Ok(route)
        };
        self.route.get_or_try_init(find).await.copied()
    }

    /// Begins a transaction.
    pub(in crate::store::postgres) async fn begin(&self) -> Result<Transaction<'static>, sqlx::Error> {
        self.begin_as(Kind::ReadWrite).await
    }

    /// Begins a transaction that only reads, and sees one snapshot.
    pub(in crate::store::postgres) async fn begin_snapshot(&self) -> Result<Transaction<'static>, sqlx::Error> {
        self.begin_as(Kind::Snapshot).await
    }

    async fn begin_as(&self, kind: Kind) -> Result<Transaction<'static>, sqlx::Error> {
        let route = self.route().await?;
        let begin = AssertSqlSafe(self.sessions.begin(route, kind)).into_sql_str();
        Transaction::begin(self.pool.acquire().await?, begin, route).await
    }

    /// Connects outside of the pool and begins a transaction. It ends with the connection.
    pub(in crate::store::postgres) async fn begin_alone(&self) -> Result<PgConnection, sqlx::Error> {
        self.begin_alone_as(Kind::ReadWrite).await
    }

    /// Connects outside of the pool and begins a transaction that only reads, and sees one snapshot.
    pub(in crate::store::postgres) async fn begin_snapshot_alone(&self) -> Result<PgConnection, sqlx::Error> {
        self.begin_alone_as(Kind::Snapshot).await
    }

    async fn begin_alone_as(&self, kind: Kind) -> Result<PgConnection, sqlx::Error> {
        let route = self.route().await?;
        let mut connection = PgConnection::connect_with(&self.sessions.options(route)).await?;
        self.sessions.verify(&mut connection, route).await?;
        sqlx::raw_sql(AssertSqlSafe(self.sessions.begin(route, kind))).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Returns the numbers of all and of idle connections.
    pub(in crate::store::postgres) fn counts(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Closes all connections.
    pub(in crate::store::postgres) async fn close(&self) {
        self.pool.close().await;
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options contain the password.
        f.debug_struct("Connections").field("route", &self.route).finish_non_exhaustive()
    }
}

/// Runs single statements.
impl<'c> Executor<'c> for &'c Connections {
    type Database = Database;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Database>,
    {
        let results = async move {
            let results: Vec<_> = match self.route().await? {
                Route::Direct => (&self.pool).fetch_many(query).try_collect().await?,
                Route::Pooled => {
                    let mut transaction = self.begin().await?;
                    let results = transaction.fetch_many(query).try_collect().await?;
                    transaction.commit().await?;
                    results
                }
            };
            Ok(stream::iter(results.into_iter().map(Ok)))
        };
        Box::pin(results.try_flatten_stream())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Database>,
    {
        async move {
            match self.route().await? {
                Route::Direct => (&self.pool).fetch_optional(query).await,
                Route::Pooled => {
                    let mut transaction = self.begin().await?;
                    let row = transaction.fetch_optional(query).await?;
                    transaction.commit().await?;
                    Ok(row)
                }
            }
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        (&self.pool).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Database>, sqlx::Error>>
    where
        'c: 'e,
    {
        (&self.pool).describe(sql)
    }
}
