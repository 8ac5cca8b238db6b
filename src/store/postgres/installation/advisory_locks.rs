//! Advisory locks: who does something alone. Each ends with the connection that it holds.

use sqlx::{Postgres as Database, pool::PoolConnection};

use crate::store::postgres::{Postgres, PostgresError};

/// An advisory lock. It ends with the connection that it holds.
#[derive(Debug)]
pub struct AdvisoryLock {
    connection: Option<PoolConnection<Database>>,
}

/// Tells our advisory locks from anybody else's in the same database.
const CLASS: i32 = 0x7167; // "qg"
/// What is locked where it is no partition, which are numbered from 0.
const REPAIRS: i32 = -1;

impl Postgres {
    /// Takes the lock of a partition's opening, if nobody has it.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn try_lock_partition(&self, partition: u16) -> Result<Option<AdvisoryLock>, PostgresError> {
        self.try_lock(i32::from(partition)).await
    }

    /// Takes the lock of repairs, if nobody has it.
    ///
    /// # Errors
    /// If Postgres is away.
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
    /// Closes the connection instead of giving it back: the lock ends with it, whatever happens.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}
