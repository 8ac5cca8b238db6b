//! The heaviest users, and those who will run out before the reset. Queries of the current period scan `chat_quotas`
//! once; those of a closed one use an index.

use chrono::{DateTime, Utc};

use crate::store::postgres::{Postgres, PostgresError};

/// A user's usage in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeavyUser {
    /// User id.
    pub user: String,
    /// Level in that period.
    pub level: String,
    /// Quota in AP.
    pub quota: i32,
    /// AP charged.
    pub used: i64,
}

/// Forecast for the users of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelForecast {
    /// Level name.
    pub level: String,
    /// Users with usage in the period.
    pub active: i64,
    /// Users whose quota is used up.
    pub exhausted: i64,
    /// Users whose quota will be used up before the reset at their rate so far.
    pub running_out: i64,
}

/// A user who will run out.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningOut {
    /// The user.
    pub user: HeavyUser,
    /// Fraction of the period after which the quota is used up, from 0 to 1.
    pub at_fraction: f64,
}

impl Postgres {
    /// Returns the heaviest users of a period.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn top_users(&self, period: i32, current: i32, limit: u32) -> Result<Vec<HeavyUser>, PostgresError> {
        let users = if period == current {
            sqlx::query_as!(
                HeavyUser,
                r#"select user_uuid as "user", membership_level as level, monthly_quota as quota, monthly_used as used
                 from chat_quotas
                 where period = $1
                 order by monthly_used desc, user_uuid
                 limit $2"#,
                period,
                i64::from(limit),
            )
            .fetch_all(&self.pool)
            .await?
        } else {
            sqlx::query_as!(
                HeavyUser,
                r#"select user_uuid as "user", membership_level as level, monthly_quota as quota, used
                 from chat_quota_months
                 where period = $1
                 order by used desc, user_uuid
                 limit $2"#,
                period,
                i64::from(limit),
            )
            .fetch_all(&self.pool)
            .await?
        };
        Ok(users)
    }

    /// Returns a forecast for each level. A user will run out if the used share of the quota exceeds the elapsed share
    /// of the period.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn forecast(&self, period: i32, elapsed: f64) -> Result<Vec<LevelForecast>, PostgresError> {
        let levels = sqlx::query_as!(
            LevelForecast,
            r#"select membership_level as level,
                    count(*) as "active!",
                    count(*) filter (where monthly_used >= monthly_quota) as "exhausted!",
                    count(*) filter (
                        where monthly_used < monthly_quota and monthly_used > monthly_quota * $2::double precision
                    ) as "running_out!"
             from chat_quotas
             where period = $1
               and monthly_used > 0
             group by 1
             order by 1"#,
            period,
            elapsed,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(levels)
    }

    /// Returns the users who will run out before the reset, earliest first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn running_out(
        &self,
        period: i32,
        elapsed: f64,
        level: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RunningOut>, PostgresError> {
        let rows = sqlx::query!(
            r#"select user_uuid as "user!", membership_level as "level!", monthly_quota as "quota!", monthly_used as "used!",
                    $2::double precision * monthly_quota / monthly_used as "at_fraction!"
             from chat_quotas
             where period = $1
               and monthly_used > 0
               and monthly_used < monthly_quota
               and monthly_used > monthly_quota * $2::double precision
               and ($3::text is null or membership_level = $3)
             order by 5, 1
             limit $4"#,
            period,
            elapsed,
            level,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let user = rows.into_iter().map(|row| RunningOut {
            user: HeavyUser { user: row.user, level: row.level, quota: row.quota, used: row.used },
            at_fraction: row.at_fraction,
        });
        Ok(user.collect())
    }
}

/// Returns the elapsed share of a period, from 0 to 1; never 0, because a forecast needs elapsed time.
#[must_use]
pub fn elapsed(start: DateTime<Utc>, end: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share of a month")]
    let share = (now - start).num_seconds() as f64 / (end - start).num_seconds() as f64;
    share.clamp(1e-6, 1.0)
}
