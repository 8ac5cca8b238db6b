//! `membership_levels`: names, codes and quotas of the levels, the same for every gate (decision 0018).

use chrono::{DateTime, Utc};

use crate::domain::{
    InvalidInput,
    ap::Ap,
    level::{Level, LevelCode, LevelName, LevelTerms, Levels},
    level_difference::LevelDifference,
    window::LevelLimits,
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    installation::{level_changes, meters::meters},
    integers::integer,
};

impl Postgres {
    /// Stores the configured levels if this installation has none yet. Returns the levels of the installation.
    ///
    /// Before release 0.2, each start stored its configuration. So the first start of a later release does it a last
    /// time, and retires the levels that are not configured.
    ///
    /// # Errors
    /// If Postgres is unavailable, or there are too many levels.
    pub async fn seed_levels(
        &self,
        configured: &[(LevelName, LevelTerms)],
        now: DateTime<Utc>,
    ) -> Result<Levels, PostgresError> {
        if self.level_version().await? == 0 {
            let mut transaction = self.pool.begin().await?;
            lock(&mut transaction).await?;
            if level_changes::newest(&mut transaction).await? == 0 {
                store(&mut transaction, configured, 0, now).await?;
            }
            transaction.commit().await?;
        }
        self.all_levels().await
    }

    /// Makes the configured levels those of the installation, in one transaction: assigns codes to new levels, changes
    /// quotas, and retires levels that are not configured. Returns the version, and what changed. The version rises
    /// above `known_version`, the highest one that Redis has, also if nothing else changes.
    ///
    /// # Errors
    /// If Postgres is unavailable, or there are too many levels: nothing has changed.
    pub async fn change_levels(
        &self,
        configured: &[(LevelName, LevelTerms)],
        known_version: u32,
        now: DateTime<Utc>,
    ) -> Result<(u32, Vec<LevelDifference>), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        lock(&mut transaction).await?;
        let levels = read(&mut transaction).await?;
        let differences = levels.differences(configured);
        if !differences.is_empty() || levels.version() < known_version {
            let version = store(&mut transaction, configured, known_version, now).await?;
            transaction.commit().await?;
            return Ok((version, differences));
        }
        Ok((levels.version(), differences))
    }

    /// Returns every level that a row or event may name, retired ones too.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn all_levels(&self) -> Result<Levels, PostgresError> {
        let levels = read(&self.pool).await?;
        let meters = meters(&self.pool, &levels).await?;
        Ok(levels.with_meters(meters))
    }
}

/// Serializes changes. Readers are not blocked.
pub(super) async fn lock(connection: &mut Transaction<'_>) -> Result<(), PostgresError> {
    sqlx::query!("lock table membership_levels in exclusive mode").execute(connection).await?;
    Ok(())
}

pub(super) async fn read<'e>(connection: impl sqlx::PgExecutor<'e>) -> Result<Levels, PostgresError> {
    let rows = sqlx::query!(
        r#"select code, name, monthly_quota, windows, concurrency, retired,
                  (select coalesce(max(version), 0) from level_changes) as "version!"
           from membership_levels"#
    )
    .fetch_all(connection)
    .await?;
    let version = rows.first().and_then(|row| u32::try_from(row.version).ok()).unwrap_or_default();
    let levels: Result<Vec<Level>, InvalidInput> = rows
        .into_iter()
        .map(|row| {
            let invalid = || InvalidInput { field: "level", rule: format!("code {} is invalid", row.code) };
            Ok(Level {
                code: u8::try_from(row.code).ok().and_then(LevelCode::new).ok_or_else(invalid)?,
                name: LevelName::parse(&row.name)?,
                quota: Ap::new(u32::try_from(row.monthly_quota).map_err(|_| invalid())?),
                limits: LevelLimits::parse(&row.windows, row.concurrency.and_then(|count| u8::try_from(count).ok()))?,
                retired: row.retired,
            })
        })
        .collect();
    levels.and_then(|levels| Levels::new(version, levels)).map_err(|error| PostgresError::Unfit(error.to_string()))
}

/// Stores the levels under a new version, and returns it.
async fn store(
    connection: &mut Transaction<'_>,
    configured: &[(LevelName, LevelTerms)],
    known_version: u32,
    now: DateTime<Utc>,
) -> Result<u32, PostgresError> {
    if configured.is_empty() {
        return Err(PostgresError::Unfit("levels: at least one level must be configured".into()));
    }
    let names: Vec<&str> = configured.iter().map(|(name, _)| name.as_str()).collect();
    check_count(connection, &names).await?;
    let newest = level_changes::newest(&mut *connection).await?.max(known_version);
    // Time, not a count: Postgres may be restored to before changes that Redis has.
    let version = u32::try_from(now.timestamp()).unwrap_or(u32::MAX).max(newest.saturating_add(1));
    let (mut changes, mut moves_users) = (Vec::new(), false);
    for (name, terms) in configured {
        let stored = sqlx::query_scalar!(
            r#"insert into membership_levels as levels
                 (code, name, monthly_quota, updated_at, windows, longest_window_minutes, concurrency)
             select coalesce(max(code), 0) + 1, $1, $2, $3, $5, $6, $7
             from membership_levels
             on conflict (name) do update
             set monthly_quota = excluded.monthly_quota,
                 windows = excluded.windows,
                 longest_window_minutes = greatest(levels.longest_window_minutes, excluded.longest_window_minutes),
                 concurrency = excluded.concurrency,
                 retired = false,
                 quota_version = case when levels.monthly_quota = excluded.monthly_quota then levels.quota_version else $4 end,
                 updated_at = excluded.updated_at
             where levels.retired
                or (levels.monthly_quota, levels.windows, levels.concurrency)
                   is distinct from (excluded.monthly_quota, excluded.windows, excluded.concurrency)
             returning quota_version = $4 as "is_new_quota!""#,
            name.as_str(),
            integer(terms.quota.get()),
            now,
            i64::from(version),
            terms.limits.windows_text(),
            i32::from(terms.limits.longest_minutes()),
            terms.limits.concurrency().map(i16::from),
        )
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(is_new_quota) = stored {
            moves_users |= is_new_quota;
            changes.push(format!("{name} {}{}", terms.quota, terms.limits));
        }
    }
    let retired = sqlx::query_scalar!(
        "update membership_levels
         set retired = true,
             updated_at = $2
         where name <> all ($1)
           and not retired
         returning name",
        &names as &[&str],
        now,
    )
    .fetch_all(&mut *connection)
    .await?;
    changes.extend(retired.iter().map(|name| format!("{name} retired")));
    level_changes::note(connection, version, &changes.join(", "), !moves_users, now).await?;
    Ok(version)
}

/// Checks that a code is free for each new level, before anything is changed.
async fn check_count(connection: &mut Transaction<'_>, names: &[&str]) -> Result<(), PostgresError> {
    let count = sqlx::query_scalar!(
        r#"select count(distinct name) as "count!"
           from (select name from membership_levels union select unnest($1::text[])) as names"#,
        names as &[&str],
    )
    .fetch_one(connection)
    .await?;
    let max = Levels::COUNT_MAX;
    if usize::try_from(count).unwrap_or(usize::MAX) > max {
        return Err(PostgresError::Unfit(format!(
            "levels: this installation would have {count} level names, but only {max} are possible, and the names of \
             retired levels stay assigned: give a retired level another quota instead of adding a new name"
        )));
    }
    Ok(())
}
