//! `rollout_changes`: history of the rollout. The newest row is in force for all gates.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::domain::{InvalidInput, rollout::Rollout, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction};

/// Serializes gates that start concurrently with the same new configuration.
const CONFIGURATION_LOCK: i64 = 0x726f_6c6c;

/// A rollout and its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutChange {
    /// Increases with every change.
    pub id: i64,
    /// Time of the change.
    pub at: DateTime<Utc>,
    /// Token id, or `configuration`.
    pub by: String,
    /// Reason in words.
    pub reason: String,
    /// Rollout since the change.
    pub rollout: Rollout,
}

struct Row {
    id: i64,
    changed_at: DateTime<Utc>,
    changed_by: String,
    reason: String,
    mode: String,
    percentage: f64,
    always_in: Vec<String>,
    always_out: Vec<String>,
}

impl Postgres {
    /// Returns the last changes, newest first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn rollout_changes(&self, limit: u32) -> Result<Vec<RolloutChange>, PostgresError> {
        newest(&mut self.pool.begin().await?, false, limit).await
    }

    /// Changes the rollout.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn change_rollout(
        &self,
        rollout: &Rollout,
        (by, reason): (&str, &str),
        at: DateTime<Utc>,
    ) -> Result<(), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        insert(&mut transaction, rollout, (by, reason), at, false).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Changes the rollout to the configured one if that differs from the last configured one. Returns whether it
    /// differs.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn configure_rollout(&self, rollout: &Rollout, at: DateTime<Utc>) -> Result<bool, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("select pg_advisory_xact_lock($1)", CONFIGURATION_LOCK).execute(&mut transaction).await?;
        let last = newest(&mut transaction, true, 1).await?.pop();
        if last.map_or_else(Rollout::default, |change| change.rollout) == *rollout {
            return Ok(false);
        }
        insert(&mut transaction, rollout, ("configuration", "the configuration has changed"), at, true).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Returns the last changes, newest first; if `configured`, only those that came from the configuration.
async fn newest(
    connection: &mut Transaction<'_>,
    configured: bool,
    limit: u32,
) -> Result<Vec<RolloutChange>, PostgresError> {
    let rows = sqlx::query_as!(
        Row,
        "select id, changed_at, changed_by, reason, mode, percentage, always_in, always_out
         from rollout_changes
         where from_configuration or not $1
         order by id desc
         limit $2",
        configured,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

async fn insert(
    connection: &mut Transaction<'_>,
    rollout: &Rollout,
    (by, reason): (&str, &str),
    at: DateTime<Utc>,
    from_configuration: bool,
) -> Result<(), PostgresError> {
    let ids = |users: &BTreeSet<UserId>| users.iter().map(UserId::to_string).collect::<Vec<_>>();
    sqlx::query!(
        "insert into rollout_changes
             (changed_at, changed_by, reason, mode, percentage, always_in, always_out, from_configuration)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        at,
        by,
        reason,
        rollout.mode.as_str(),
        rollout.percentage.get(),
        &ids(&rollout.always_in),
        &ids(&rollout.always_out),
        from_configuration,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Row {
    fn read(self) -> Result<RolloutChange, PostgresError> {
        let rollout = || -> Result<Rollout, InvalidInput> {
            let users = |ids: &[String]| ids.iter().map(|id| UserId::parse(id)).collect::<Result<_, _>>();
            Ok(Rollout {
                mode: self.mode.parse()?,
                percentage: self.percentage.try_into()?,
                always_in: users(&self.always_in)?,
                always_out: users(&self.always_out)?,
            })
        };
        let rollout =
            rollout().map_err(|error| PostgresError::Unfit(format!("row {} of rollout_changes: {error}", self.id)))?;
        Ok(RolloutChange { id: self.id, at: self.changed_at, by: self.changed_by, reason: self.reason, rollout })
    }
}
