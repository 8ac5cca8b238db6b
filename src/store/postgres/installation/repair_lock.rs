//! The lock of repairs: one repair at a time.

use sqlx::PgConnection;

use crate::store::postgres::{Postgres, PostgresError};

/// The lock of a running repair. It has a connection of its own, and ends with it.
#[derive(Debug)]
pub struct RepairLock {
    _connection: PgConnection,
}

/// Distinguishes the gate's advisory locks from others in the same database.
pub(in crate::store::postgres) const CLASS: i32 = 0x7167; // "qg"
/// Lock number of repairs.
const REPAIRS: i32 = -1;

impl Postgres {
    /// Takes the lock of repairs if it is free.
    ///
    /// A lock that took a connection of the pool could wait for itself, because the repair needs connections too. It is
    /// held by an open transaction, because behind a pooler the lock of a session may outlive the client.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn try_lock_repairs(&self) -> Result<Option<RepairLock>, PostgresError> {
        let mut connection = self.pool.begin_alone().await?;
        // A repair takes as long as it takes.
        sqlx::raw_sql("set local idle_in_transaction_session_timeout = 0").execute(&mut connection).await?;
        let locked: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1, $2)")
            .bind(CLASS)
            .bind(REPAIRS)
            .persistent(false)
            .fetch_one(&mut connection)
            .await?;
        Ok(locked.then_some(RepairLock { _connection: connection }))
    }
}
