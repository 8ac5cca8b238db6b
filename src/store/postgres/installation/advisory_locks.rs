//! Advisory locks, for work of one process at a time.

use sqlx::{Postgres as Database, pool::PoolConnection};

use crate::store::postgres::{Postgres, PostgresError};

/// An advisory lock, released when its connection closes.
#[derive(Debug)]
pub struct AdvisoryLock {
    connection: Option<PoolConnection<Database>>,
}

/// Distinguishes the gate's advisory locks from others in the same database.
const CLASS: i32 = 0x7167; // "qg"
/// Lock number of repairs. Partitions are numbered from 0.
const REPAIRS: i32 = -1;

impl Postgres {
    /// Takes the lock for opening a partition if it is free.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn try_lock_partition(&self, partition: u16) -> Result<Option<AdvisoryLock>, PostgresError> {
        self.try_lock(i32::from(partition)).await
    }

    /// Takes the lock for repairs if it is free.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn try_lock_repairs(&self) -> Result<Option<AdvisoryLock>, PostgresError> {
        self.try_lock(REPAIRS).await
    }

    async fn try_lock(&self, what: i32) -> Result<Option<AdvisoryLock>, PostgresError> {
        let mut connection = self.pool.acquire().await?;
        let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1, $2) as "locked!""#, CLASS, what)
            .fetch_one(&mut *connection)
            .await?;
        Ok(locked.then_some(AdvisoryLock { connection: Some(connection) }))
    }
}

impl Drop for AdvisoryLock {
    /// Closes the connection instead of returning it to the pool, so the lock is always released.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}
