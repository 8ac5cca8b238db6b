//! A transaction on a connection of the pool.

use futures_util::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Acquire, Either, Execute, Executor, PgConnection, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres as Database},
};

use super::Route;

/// A transaction, or a savepoint in one. It is rolled back unless it is committed.
#[derive(Debug)]
pub(in crate::store::postgres) struct Transaction<'c> {
    inner: sqlx::Transaction<'c, Database>,
    route: Route,
}

impl<'c> Transaction<'c> {
    pub(super) const fn new(inner: sqlx::Transaction<'c, Database>, route: Route) -> Self {
        Self { inner, route }
    }

    /// Commits.
    pub(in crate::store::postgres) async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }

    /// Rolls back.
    pub(in crate::store::postgres) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.inner.rollback().await
    }

    /// Sets a savepoint.
    pub(in crate::store::postgres) async fn savepoint(&mut self) -> Result<Transaction<'_>, sqlx::Error> {
        let route = self.route;
        Ok(Transaction { inner: self.inner.begin().await?, route })
    }

    /// The connection, for `COPY` and statements without parameters. Others would be named.
    pub(in crate::store::postgres) fn raw(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}

impl<'t> Executor<'t> for &'t mut Transaction<'_> {
    type Database = Database;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Database>,
    {
        match self.route {
            Route::Direct => (&mut *self.inner).fetch_many(query),
            Route::Pooled => (&mut *self.inner).fetch_many(Unnamed(query)),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Database>,
    {
        match self.route {
            Route::Direct => (&mut *self.inner).fetch_optional(query),
            Route::Pooled => (&mut *self.inner).fetch_optional(Unnamed(query)),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        't: 'e,
    {
        (&mut *self.inner).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Database>, sqlx::Error>>
    where
        't: 'e,
    {
        (&mut *self.inner).describe(sql)
    }
}

/// A query whose statement has no name. Behind a pooler, two clients may share a server session, and their names would
/// collide.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Database>> Execute<'q, Database> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}
