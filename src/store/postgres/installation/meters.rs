//! `meters` and `meter_levels`: the meters beside the chat, and the quotas that levels have of them. Changed under the
//! versions of the levels (decisions 0018 and 0023).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::{
    InvalidInput,
    ap::Ap,
    level::{LevelName, LevelTerms, Levels},
    level_difference::MeterDifference,
    meter::{Meter, MeterCode, MeterLevels, MeterName},
    window::LevelLimits,
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    installation::{
        level_changes,
        membership_levels::{lock, read},
    },
    integers::{integer, meter_of},
};

impl Postgres {
    /// Stores the configured meters that this installation does not have yet, for levels that it has. No user has used
    /// them. Returns the levels with all meters.
    ///
    /// # Errors
    /// If Postgres is unavailable, or there are too many meters.
    pub async fn seed_meters(&self, configured: &[MeterLevels], now: DateTime<Utc>) -> Result<Levels, PostgresError> {
        let levels = self.all_levels().await?;
        let is_known = |meter: &MeterLevels| levels.meters().iter().any(|known| known.name == meter.name);
        let new: Vec<MeterLevels> = configured.iter().filter(|meter| !is_known(meter)).cloned().collect();
        if new.is_empty() {
            return Ok(levels);
        }
        self.change_meters(&new, 0, now).await?;
        self.all_levels().await
    }

    /// Makes the configured quotas those of the installation, in one transaction, and assigns codes to new meters. A
    /// meter that is not configured stays as it is. Returns the version of the levels, and what changed. The version
    /// rises above `known_version`, the highest one that Redis has, if something changes.
    ///
    /// # Errors
    /// If Postgres is unavailable, there are too many meters, or a level is unknown: nothing has changed.
    pub async fn change_meters(
        &self,
        configured: &[MeterLevels],
        known_version: u32,
        now: DateTime<Utc>,
    ) -> Result<(u32, Vec<MeterDifference>), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        lock(&mut transaction).await?;
        let levels = read(&mut transaction).await?;
        let levels = levels.clone().with_meters(meters(&mut transaction, &levels).await?);
        let differences = levels.meter_differences(configured);
        if differences.is_empty() {
            return Ok((levels.version(), differences));
        }
        for meter in configured {
            store(&mut transaction, meter, now).await?;
        }
        let newest = levels.version().max(known_version);
        let version = u32::try_from(now.timestamp()).unwrap_or(u32::MAX).max(newest.saturating_add(1));
        let changes: Vec<String> = differences.iter().map(ToString::to_string).collect();
        // Redis applies the quota of a meter to every record itself, so no user has to be moved.
        level_changes::note(&mut transaction, version, &changes.join(", "), true, now).await?;
        transaction.commit().await?;
        Ok((version, differences))
    }
}

/// Reads the meters. To be read after the levels: then a version never has older meters than those of its change.
pub(super) async fn meters<'e>(
    connection: impl sqlx::PgExecutor<'e>,
    levels: &Levels,
) -> Result<Vec<Meter>, PostgresError> {
    let rows = sqlx::query!(
        r#"select meters.code as "code!", meters.name as "name!", terms.membership_level as "level?", terms.quota as "quota?",
                  terms.windows as "windows?", terms.concurrency as "concurrency?"
           from meters
           left join meter_levels as terms on terms.meter = meters.code"#
    )
    .fetch_all(connection)
    .await?;
    let mut found: BTreeMap<MeterCode, Meter> = BTreeMap::new();
    for row in rows {
        let wrong = |column| PostgresError::inconsistent("meters", column, row.code);
        let code = meter_of(row.code).ok_or_else(|| wrong("code"))?;
        let name = MeterName::parse(&row.name).map_err(|_| wrong("name"))?;
        let meter = found.entry(code).or_insert_with(|| Meter { code, name, levels: Vec::new() });
        let (Some(level), Some(quota), Some(windows)) = (&row.level, row.quota, &row.windows) else { continue };
        // A level that was added since the levels were read belongs to a later version.
        let Some(level) = levels.named(level) else { continue };
        meter.levels.push((level.code, terms(quota, windows, row.concurrency).map_err(|_| wrong("windows"))?));
    }
    for meter in found.values_mut() {
        meter.levels.sort_by_key(|(code, _)| *code);
    }
    Ok(found.into_values().collect())
}

fn terms(quota: i32, windows: &str, concurrency: Option<i16>) -> Result<LevelTerms, InvalidInput> {
    let concurrency = concurrency.and_then(|count| u8::try_from(count).ok());
    Ok(LevelTerms { quota: Ap::new(quota.unsigned_abs()), limits: LevelLimits::parse(windows, concurrency)? })
}

/// Stores a meter and its quotas.
async fn store(connection: &mut Transaction<'_>, meter: &MeterLevels, now: DateTime<Utc>) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into meters (code, name, created_at)
         select coalesce(max(code), 0) + 1, $1, $2
         from meters
         on conflict (name) do nothing",
        meter.name.as_str(),
        now,
    )
    .execute(&mut *connection)
    .await?;
    for (level, terms) in &meter.levels {
        store_level(connection, &meter.name, (level, terms), now).await?;
    }
    Ok(())
}

async fn store_level(
    connection: &mut Transaction<'_>,
    meter: &MeterName,
    (level, terms): (&LevelName, &LevelTerms),
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into meter_levels as levels
             (meter, membership_level, quota, windows, longest_window_minutes, concurrency, updated_at)
         select meters.code, $2, $3, $4, $5, $6, $7
         from meters
         join membership_levels as known on known.name = $2
         where meters.name = $1
         on conflict (meter, membership_level) do update
         set quota = excluded.quota,
             windows = excluded.windows,
             longest_window_minutes = greatest(levels.longest_window_minutes, excluded.longest_window_minutes),
             concurrency = excluded.concurrency,
             updated_at = excluded.updated_at",
        meter.as_str(),
        level.as_str(),
        integer(terms.quota.get()),
        terms.limits.windows_text(),
        i32::from(terms.limits.longest_minutes()),
        terms.limits.concurrency().map(i16::from),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
