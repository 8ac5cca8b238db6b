//! A transaction on a connection of the pool.
//!
//! A future of the gate may be dropped at any await, for example by a time limit. After a dropped statement, the driver
//! reads its answer before the next one. It does not after a dropped `COPY`: the next statement would get the answers
//! of the `COPY`. And after a dropped `begin`, it would leave the transaction open. So such a connection is closed.

use futures_util::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Either, Execute, Executor, PgConnection, SqlStr,
    error::BoxDynError,
    pool::PoolConnection,
    postgres::{
        PgArguments, PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo, Postgres as Database,
    },
};
use sqlx_core::transaction::TransactionManager;

use super::Route;

/// A transaction, or a savepoint in one. It is rolled back unless it is committed.
#[derive(Debug)]
pub(in crate::store::postgres) struct Transaction<'c> {
    base: Base<'c>,
    route: Route,
    is_open: bool,
}

#[derive(Debug)]
enum Base<'c> {
    Transaction(Begun),
    Savepoint(&'c mut Begun),
}

/// The connection of a transaction.
#[derive(Debug)]
struct Begun {
    connection: PoolConnection<Database>,
    /// What is under way must not be dropped.
    is_busy: bool,
}

impl Transaction<'static> {
    /// Begins a transaction by this statement.
    pub(super) async fn begin(
        connection: PoolConnection<Database>,
        statement: SqlStr,
        route: Route,
    ) -> Result<Self, sqlx::Error> {
        let begun = Begun { connection, is_busy: true };
        let mut this = Self { base: Base::Transaction(begun), route, is_open: false };
        PgTransactionManager::begin(this.connection(), Some(statement)).await?;
        this.is_open = true;
        this.begun().is_busy = false;
        Ok(this)
    }
}

impl Transaction<'_> {
    /// Commits.
    pub(in crate::store::postgres) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.begun().is_busy = true;
        PgTransactionManager::commit(self.connection()).await?;
        self.begun().is_busy = false;
        self.is_open = false;
        Ok(())
    }

    /// Rolls back.
    pub(in crate::store::postgres) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.begun().is_busy = true;
        PgTransactionManager::rollback(self.connection()).await?;
        self.begun().is_busy = false;
        self.is_open = false;
        Ok(())
    }

    /// Sets a savepoint.
    pub(in crate::store::postgres) async fn savepoint(&mut self) -> Result<Transaction<'_>, sqlx::Error> {
        let route = self.route;
        let begun = self.begun();
        begun.is_busy = true;
        PgTransactionManager::begin(&mut begun.connection, None).await?;
        begun.is_busy = false;
        Ok(Transaction { base: Base::Savepoint(begun), route, is_open: true })
    }

    /// Runs a `COPY … from stdin` with this data.
    pub(in crate::store::postgres) async fn copy_in(
        &mut self,
        statement: &str,
        data: Vec<u8>,
    ) -> Result<(), sqlx::Error> {
        let begun = self.begun();
        begun.is_busy = true;
        let copied = async {
            let mut copy = begun.connection.copy_in_raw(statement).await?;
            copy.send(data).await?;
            copy.finish().await
        };
        let outcome = copied.await;
        // If Postgres has refused the statement or the data, its answers have been read.
        begun.is_busy = !matches!(outcome, Ok(_) | Err(sqlx::Error::Database(_)));
        outcome.map(|_| ())
    }

    fn begun(&mut self) -> &mut Begun {
        match &mut self.base {
            Base::Transaction(begun) => begun,
            Base::Savepoint(begun) => begun,
        }
    }

    fn connection(&mut self) -> &mut PgConnection {
        &mut self.begun().connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let is_open = self.is_open;
        let begun = self.begun();
        if begun.is_busy {
            begun.connection.close_on_drop();
        } else if is_open {
            PgTransactionManager::start_rollback(&mut begun.connection);
        }
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
            Route::Direct => self.connection().fetch_many(query),
            Route::Pooled => self.connection().fetch_many(Unnamed(query)),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Database>,
    {
        match self.route {
            Route::Direct => self.connection().fetch_optional(query),
            Route::Pooled => self.connection().fetch_optional(Unnamed(query)),
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
        self.connection().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Database>, sqlx::Error>>
    where
        't: 'e,
    {
        self.connection().describe(sql)
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
