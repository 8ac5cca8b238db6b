//! `gate_settings`: settings fixed at an installation's first start.

use chrono_tz::Tz;

use crate::domain::partition::Partitions;
use crate::store::postgres::{Postgres, PostgresError, integers::smallint};

/// Settings that cannot be changed later: that would move users between partitions, or the ends of months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Number of partitions of users.
    pub partitions: Partitions,
    /// Time zone whose midnights end days and months.
    pub time_zone: Tz,
}

impl Postgres {
    /// Stores the settings at the first start and compares them at every later one.
    ///
    /// # Errors
    /// [`PostgresError::SettingMismatch`] if the configuration differs from the stored settings.
    pub async fn settle_settings(&self, configured: &Settings) -> Result<(), PostgresError> {
        sqlx::query!(
            "insert into gate_settings (partitions, time_zone)
             values ($1, $2)
             on conflict do nothing",
            smallint(configured.partitions.count()),
            configured.time_zone.name(),
        )
        .execute(&self.pool)
        .await?;
        self.compare_settings(configured).await
    }

    /// Compares the configuration with the stored settings, if there are any.
    ///
    /// # Errors
    /// If Postgres is unavailable, or the settings differ.
    pub async fn compare_settings(&self, configured: &Settings) -> Result<(), PostgresError> {
        let stored = sqlx::query!("select partitions, time_zone from gate_settings").fetch_optional(&self.pool).await?;
        let Some(stored) = stored else { return Ok(()) };
        let compare = |setting, stored: String, configured: String| {
            if stored == configured {
                Ok(())
            } else {
                Err(PostgresError::SettingMismatch { setting, stored, configured })
            }
        };
        compare("quota.partitions", stored.partitions.to_string(), configured.partitions.count().to_string())?;
        compare("quota.time_zone", stored.time_zone, configured.time_zone.name().to_owned())
    }
}
