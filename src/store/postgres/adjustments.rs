//! Adjustments: what a repair writes. Each is a row of the log that says so.

use chrono::{DateTime, Utc};

use super::{
    Postgres, PostgresError,
    chat_usage_logs::{self, Mode},
    totals,
};
use crate::domain::{
    calendar::Calendar,
    level::Levels,
    usage::{UsageEvent, UsageKind},
};

impl Postgres {
    /// Adds a charge that Postgres missed: to the log and to the totals.
    ///
    /// # Errors
    /// If Postgres is away or refuses the row; then nothing is changed.
    pub async fn adjust(
        &self,
        event: &UsageEvent,
        levels: &Levels,
        calendar: Calendar,
        now: DateTime<Utc>,
    ) -> Result<bool, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        let events = std::slice::from_ref(event);
        let written = chat_usage_logs::write(&mut transaction, events, levels, Mode::IfAbsent).await?;
        totals::add(&mut transaction, &written.new, levels, calendar, now).await?;
        let added = !written.new.is_empty();
        transaction.commit().await?;
        Ok(added)
    }

    /// Adds a row to the log alone: the totals have it already.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn log_adjustment(
        &self,
        user: &str,
        period: i32,
        ap: u32,
        session: &str,
        now: DateTime<Utc>,
    ) -> Result<(), PostgresError> {
        sqlx::query!(
            "insert into chat_usage_logs
                 (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, created_at)
             select gen_random_uuid(), user_uuid, $3, membership_level, $2, 0, $4, 0, $5, $6
             from chat_quotas
             where user_uuid = $1",
            user,
            period,
            session,
            i32::try_from(ap).unwrap_or(i32::MAX),
            UsageKind::Adjustment.as_str(),
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Raises a user's totals by what the log has more.
    ///
    /// # Errors
    /// If Postgres is away; then nothing is changed.
    pub async fn raise_totals(
        &self,
        user: &str,
        period: i32,
        ap: i64,
        now: DateTime<Utc>,
    ) -> Result<(), PostgresError> {
        sqlx::query!(
            "with closed as (
                 update chat_quota_months
                 set used = used + $3
                 where user_uuid = $1
                   and period = $2
             )
             update chat_quotas
             set monthly_used = monthly_used + case when period = $2 then $3 else 0 end,
                 total_used = total_used + $3,
                 updated_at = greatest(updated_at, $4)
             where user_uuid = $1",
            user,
            period,
            ap,
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
