//! Proves from one snapshot that what was used on other meters than the chat is the sum of the log, and repairs it.

use chrono::{DateTime, Utc};

use crate::domain::{meter::MeterCode, usage::UsageKind};
use crate::store::postgres::{
    Postgres, PostgresError,
    integers::{as_count, meter_of},
};

/// A period of a user and a meter that differs from the sum of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterDrift {
    /// User id.
    pub user: String,
    /// The meter.
    pub meter: MeterCode,
    /// The period.
    pub period: i32,
    /// AP that the plan paid, by the log and by `meter_usage`.
    pub used: (u64, u64),
    /// AP that the plan and grants paid, in the same order.
    pub total: (u64, u64),
}

impl Postgres {
    /// Returns every period that differs from the log. Periods that the log does not have whole are not compared.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn meter_drift(&self) -> Result<Vec<MeterDrift>, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let rows = sqlx::query!(
            r#"with whole as (
                 select coalesce(date_trunc('month', log_begins_on + interval '1 month')::date, '-infinity') as begins
                 from gate_settings
             ),
             logged as (
                 select user_uuid, meter, period, sum(coalesce(plan_ap, ap_used)) as used, sum(ap_used) as total
                 from chat_usage_logs
                 where meter > 0
                   and exists (select from meters)
                 group by user_uuid, meter, period
             ),
             compared as (
                 select user_uuid,
                        meter,
                        period,
                        coalesce(logged.used, 0)::bigint as logged_used,
                        coalesce(usage.used, 0) as used,
                        coalesce(logged.total, 0)::bigint as logged_total,
                        coalesce(usage.total, 0) as total
                 from logged
                 full join meter_usage as usage using (user_uuid, meter, period)
             )
             select user_uuid as "user!", meter as "meter!", period as "period!", logged_used as "logged_used!",
                    used as "used!", logged_total as "logged_total!", total as "total!"
             from compared
             where (logged_used, logged_total) <> (used, total)
               and period_begins(period) >= coalesce((select begins from whole), '-infinity')
             order by 1, 2, 3"#
        )
        .fetch_all(&mut snapshot)
        .await?;
        rows.into_iter()
            .map(|row| {
                let wrong = || PostgresError::inconsistent("meter_usage", "meter", &row.user);
                Ok(MeterDrift {
                    meter: meter_of(row.meter).ok_or_else(wrong)?,
                    period: row.period,
                    used: (as_count(row.logged_used), as_count(row.used)),
                    total: (as_count(row.logged_total), as_count(row.total)),
                    user: row.user,
                })
            })
            .collect()
    }

    /// Raises what was used to the sum of the log. Where the log has less, completes the log, because people see it.
    /// Returns how many periods were raised, and how many rows were added to the log.
    ///
    /// # Errors
    /// If Postgres is unavailable; what was repaired stays repaired.
    pub async fn repair_meters(&self, session: &str, now: DateTime<Utc>) -> Result<(u64, u64), PostgresError> {
        let drift = self.meter_drift().await?;
        let behind = drift.iter().filter(|drift| drift.used.0 > drift.used.1 || drift.total.0 > drift.total.1);
        let mut raised = 0;
        for drift in behind {
            self.raise_meter(drift, now).await?;
            raised += 1;
        }
        let mut logged = 0;
        for drift in self.meter_drift().await? {
            logged += self.log_meter_adjustment(&drift, session, now).await?;
        }
        Ok((raised, logged))
    }

    async fn raise_meter(&self, drift: &MeterDrift, now: DateTime<Utc>) -> Result<(), PostgresError> {
        sqlx::query!(
            "insert into meter_usage as usage (user_uuid, meter, period, used, total, updated_at)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (user_uuid, meter, period) do update
             set used = greatest(usage.used, excluded.used),
                 total = greatest(usage.total, excluded.total)",
            drift.user,
            i16::from(drift.meter),
            drift.period,
            drift.used.0.cast_signed(),
            drift.total.0.cast_signed(),
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Adds what the log lacks. Which grants have paid of it is not known, so only a difference of the plan's part can
    /// be added.
    async fn log_meter_adjustment(
        &self,
        drift: &MeterDrift,
        session: &str,
        now: DateTime<Utc>,
    ) -> Result<u64, PostgresError> {
        let missing = drift.used.1.saturating_sub(drift.used.0);
        if missing == 0 || missing != drift.total.1.saturating_sub(drift.total.0) {
            return Ok(0);
        }
        let done = sqlx::query!(
            "insert into chat_usage_logs
                 (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, created_at, meter)
             select gen_random_uuid(), user_uuid, $3, membership_level, $2, 0, $4, 0, $5, $6, $7
             from chat_quotas
             where user_uuid = $1",
            drift.user,
            drift.period,
            session,
            i32::try_from(missing).unwrap_or(i32::MAX),
            UsageKind::Adjustment.as_str(),
            now,
            i16::from(drift.meter),
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
