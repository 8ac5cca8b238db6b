//! `membership_levels`: names, codes and quotas.

use chrono::{DateTime, Utc};

use crate::domain::{
    InvalidInput,
    ap::Ap,
    level::{Level, LevelCode, LevelName, Levels},
};
use crate::store::postgres::{Postgres, PostgresError, integers::integer};

impl Postgres {
    /// Stores the configured levels: assigns a code to each new level and updates changed quotas. A user's quota
    /// changes when the user's row rolls. Returns the configured levels.
    ///
    /// # Errors
    /// If Postgres is unavailable, or there are more than 255 levels.
    pub async fn sync_levels(
        &self,
        configured: &[(LevelName, Ap)],
        now: DateTime<Utc>,
    ) -> Result<Levels, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        // Serializes the assignment of codes.
        sqlx::query!("lock table membership_levels in exclusive mode").execute(&mut transaction).await?;
        for (name, quota) in configured {
            sqlx::query!(
                "insert into membership_levels as levels (code, name, monthly_quota, updated_at)
                 select coalesce(max(code), 0) + 1, $1, $2, $3
                 from membership_levels
                 on conflict (name) do update
                 set monthly_quota = excluded.monthly_quota,
                     updated_at = excluded.updated_at
                 where levels.monthly_quota <> excluded.monthly_quota",
                name.as_str(),
                integer(quota.get()),
                now,
            )
            .execute(&mut transaction)
            .await?;
        }
        transaction.commit().await?;
        let all = self.all_levels().await?;
        let used = all.iter().filter(|level| configured.iter().any(|(name, _)| *name == level.name)).cloned();
        Levels::new(used.collect()).map_err(|error| PostgresError::Unfit(error.to_string()))
    }

    /// Returns every level that a row or event may name, including levels that are no longer configured.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn all_levels(&self) -> Result<Levels, PostgresError> {
        let rows =
            sqlx::query!("select code, name, monthly_quota from membership_levels").fetch_all(&self.pool).await?;
        let levels: Result<Vec<Level>, InvalidInput> = rows
            .into_iter()
            .map(|row| {
                let invalid = || InvalidInput { field: "level", rule: format!("code {} is invalid", row.code) };
                Ok(Level {
                    code: u8::try_from(row.code).ok().and_then(LevelCode::new).ok_or_else(invalid)?,
                    name: LevelName::parse(&row.name)?,
                    quota: Ap::new(u32::try_from(row.monthly_quota).map_err(|_| invalid())?),
                })
            })
            .collect();
        levels.and_then(Levels::new).map_err(|error| PostgresError::Unfit(error.to_string()))
    }
}
