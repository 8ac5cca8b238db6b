//! The heaviest users, and those who will run out before the reset. Queries of the current period scan `chat_quotas`
//! once; those of a closed one use an index.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::domain::calendar::Period;
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
    /// When the quota is used up.
    pub runs_out_at: DateTime<Utc>,
}

/// Queries users with usage in their current period. `$1` is the time, `$2` the time zone. `share` is the elapsed part
/// of the user's period, from 0 to 1; never 0, because a forecast needs elapsed time.
macro_rules! active_users {
    ($kind:tt $(($type:ident))?, $select:literal, $end:literal, $($argument:expr),+ $(,)?) => {
        sqlx::$kind!(
            $($type,)?
            r#"with active as (
                 select quotas.*, begins_at,
                        greatest(1e-6, extract(epoch from $1 - begins_at) / extract(epoch from quota_reset_at - begins_at))
                            ::double precision as share
                 from chat_quotas as quotas
                 cross join lateral (select period_begins(quotas.period)::timestamp at time zone $2::text as begins_at) as begin
                 where quota_reset_at > $1
                   and monthly_used > 0
             )
             select "# + $select + " from active " + $end,
            $($argument),+
        )
    };
}

impl Postgres {
    /// Returns the heaviest users in their current periods.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn top_users(&self, now: DateTime<Utc>, limit: u32) -> Result<Vec<HeavyUser>, PostgresError> {
        let users = sqlx::query_as!(
            HeavyUser,
            r#"select user_uuid as "user", membership_level as level, monthly_quota as quota, monthly_used as used
             from chat_quotas
             where quota_reset_at > $1
             order by monthly_used desc, user_uuid
             limit $2"#,
            now,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users)
    }

    /// Returns the heaviest users in closed periods that began in a month.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn top_users_of_month(&self, month: Period, limit: u32) -> Result<Vec<HeavyUser>, PostgresError> {
        let first = i32::from(month);
        // The numbers of periods that begin on another day of the month.
        let (from, to) = (first.saturating_mul(100), first.saturating_mul(100).saturating_add(99));
        let users = sqlx::query_as!(
            HeavyUser,
            r#"select user_uuid as "user", membership_level as level, monthly_quota as quota, used
             from chat_quota_months
             where period = $1
                or period between $2 and $3
             order by used desc, user_uuid
             limit $4"#,
            first,
            from,
            to,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users)
    }

    /// Returns a forecast for each level. A user will run out if the used share of the quota exceeds the elapsed share
    /// of the period.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn forecast(&self, now: DateTime<Utc>, time_zone: Tz) -> Result<Vec<LevelForecast>, PostgresError> {
        let levels = active_users!(
            query_as(LevelForecast),
            r#"membership_level as "level!",
                    count(*) as "active!",
                    count(*) filter (where monthly_used >= monthly_quota) as "exhausted!",
                    count(*) filter (where monthly_used < monthly_quota and monthly_used > monthly_quota * share) as "running_out!""#,
            "group by 1 order by 1",
            now,
            time_zone.name(),
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
        now: DateTime<Utc>,
        time_zone: Tz,
        level: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RunningOut>, PostgresError> {
        let rows = active_users!(
            query,
            r#"user_uuid as "user!", membership_level as "level!", monthly_quota as "quota!", monthly_used as "used!",
                    begins_at + (quota_reset_at - begins_at) * (share * monthly_quota / monthly_used) as "runs_out_at!""#,
            "where monthly_used < monthly_quota
               and monthly_used > monthly_quota * share
               and ($3::text is null or membership_level = $3)
             order by 5, 1
             limit $4",
            now,
            time_zone.name(),
            level,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let user = rows.into_iter().map(|row| RunningOut {
            user: HeavyUser { user: row.user, level: row.level, quota: row.quota, used: row.used },
            runs_out_at: row.runs_out_at,
        });
        Ok(user.collect())
    }
}
