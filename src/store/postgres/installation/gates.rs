//! `gates`: the running gates, and the Redis to which each is connected. All times are Postgres' own.

use std::time::Duration;

use uuid::Uuid;

use crate::store::postgres::{Postgres, PostgresError};

/// What a gate reports of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    /// Id of this run of the gate.
    pub gate: Uuid,
    /// The Redis process to which it is connected now.
    pub redis_process: Option<&'a str>,
    /// Host and port of its Redis.
    pub redis_address: &'a str,
    /// Whether it does not serve, because other gates serve from another Redis.
    pub is_refused: bool,
}

/// A gate that was running recently.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenGate {
    /// Id of this run of the gate.
    pub gate: Uuid,
    /// The Redis process to which it was connected.
    pub redis_process: Option<String>,
    /// Host and port of its Redis.
    pub redis_address: String,
    /// Whether it does not serve, because other gates serve from another Redis.
    pub is_refused: bool,
    /// Seconds since its last heartbeat.
    pub seconds_ago: f64,
}

impl Postgres {
    /// Stores a heartbeat, and deletes the rows of gates that stopped more than a day ago without deleting them.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn note_heartbeat(&self, heartbeat: Heartbeat<'_>) -> Result<(), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        // A lost heartbeat is repeated after a second, so it need not wait for the disk.
        sqlx::query!("set local synchronous_commit = off").execute(&mut transaction).await?;
        sqlx::query!(
            "with gone as (delete from gates where seen_at < now() - interval '1 day')
             insert into gates (id, redis_process, redis_address, is_refused, started_at, seen_at)
             values ($1, $2, $3, $4, now(), now())
             on conflict (id) do update
             set redis_process = excluded.redis_process,
                 redis_address = excluded.redis_address,
                 is_refused = excluded.is_refused,
                 seen_at = excluded.seen_at",
            heartbeat.gate,
            heartbeat.redis_process,
            heartbeat.redis_address,
            heartbeat.is_refused,
        )
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Deletes the row of a gate that stops.
    ///
    /// # Errors
    /// If Postgres is unavailable. Other gates then ignore the row after a few seconds.
    pub async fn forget_gate(&self, gate: Uuid) -> Result<(), PostgresError> {
        sqlx::query!("delete from gates where id = $1", gate).execute(&self.pool).await?;
        Ok(())
    }

    /// Returns the gates that sent a heartbeat within this time, the most recent first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn seen_gates(&self, within: Duration) -> Result<Vec<SeenGate>, PostgresError> {
        let gates = sqlx::query_as!(
            SeenGate,
            r#"select id as gate, redis_process, redis_address, is_refused,
                      extract(epoch from now() - seen_at)::float8 as "seconds_ago!"
               from gates
               where seen_at > now() - make_interval(secs => $1)
               order by seen_at desc"#,
            within.as_secs_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(gates)
    }
}
