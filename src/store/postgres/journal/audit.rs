//! The audit: proves from one snapshot that the totals are the sum of the log.

use crate::domain::{ap::Ap, journal::Watermark, meter::MeterCode, user_id::UserId};
use crate::store::postgres::{
    Postgres, PostgresError, QuotaRow,
    connections::Transaction,
    journal::flush_watermarks::watermarks,
    users::{chat_quotas, meter_accounts},
};

/// A user whose totals differ from the sum of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// User id.
    pub user: String,
    /// The period; `None` for the total over all periods.
    pub period: Option<i32>,
    /// AP according to the log.
    pub logged: i64,
    /// AP according to the totals.
    pub total: i64,
}

/// A user whose quota is not that of the user's level, nor the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaDrift {
    /// User id.
    pub user: UserId,
    /// Name of the user's level.
    pub level: String,
    /// AP of the user's row.
    pub quota: Ap,
    /// AP of the level.
    pub expected: Ap,
}

/// Rows, and the watermarks of all partitions in the same snapshot.
#[derive(Debug, Clone)]
pub struct Page {
    /// Rows in user order.
    pub rows: Vec<QuotaRow>,
    /// Watermarks in partition order.
    pub watermarks: Vec<Watermark>,
}

impl Postgres {
    /// Returns every user whose totals of the chat differ from the log, in one statement and so in one snapshot.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn drift(&self) -> Result<Vec<Drift>, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let drift = sqlx::query_as!(
            Drift,
            r#"with whole as (
                 -- The log has the periods whole that begin on this day or later. Before it closed periods, and rows
                 -- that did not roll since, stand for the log.
                 select date_trunc('month', log_begins_on + interval '1 month')::date as begins from gate_settings
             ),
             logged as (
                 -- Periods count what the plan paid.
                 select user_uuid, period, sum(coalesce(plan_ap, ap_used)) as ap
                 from chat_usage_logs
                 where meter = 0
                   and period_begins(period) >= coalesce((select begins from whole), '-infinity')
                 group by user_uuid, period
             ),
             months as (
                 select user_uuid, period, monthly_used as ap from chat_quotas
                 union all
                 select user_uuid, period, used from chat_quota_months
             ),
             totals as (
                 select user_uuid, period, ap
                 from months
                 where period_begins(period) >= coalesce((select begins from whole), '-infinity')
             ),
             summed as (
                 select user_uuid, sum(ap) as ap
                 from (
                     select user_uuid, ap from logged
                     union all
                     select user_uuid, ap
                     from months
                     where period_begins(period) < coalesce((select begins from whole), '-infinity')
                     union all
                     select user_uuid, charged from grants where charged > 0 and meter = 0
                 ) as parts
                 group by user_uuid
             )
             select coalesce(logged.user_uuid, totals.user_uuid) as "user!",
                    coalesce(logged.period, totals.period) as "period?",
                    coalesce(logged.ap, 0)::bigint as "logged!",
                    coalesce(totals.ap, 0)::bigint as "total!"
             from logged
             full join totals using (user_uuid, period)
             where coalesce(logged.ap, 0) <> coalesce(totals.ap, 0)
             union all
             select coalesce(summed.user_uuid, quotas.user_uuid),
                    null,
                    coalesce(summed.ap, 0)::bigint,
                    coalesce(quotas.total_used, 0)
             from summed
             full join chat_quotas as quotas using (user_uuid)
             where coalesce(summed.ap, 0) <> coalesce(quotas.total_used, 0)
             order by 1, 2"#,
        )
        .fetch_all(&mut snapshot)
        .await?;
        Ok(drift)
    }

    /// Returns every user whose quota is not that of the user's level, in one snapshot.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn quota_drift(&self) -> Result<Vec<QuotaDrift>, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let rows = sqlx::query!(
            r#"select quotas.user_uuid, levels.name, quotas.monthly_quota,
                    coalesce(quotas.own_quota, levels.monthly_quota) as "expected!"
             from chat_quotas as quotas
             join membership_levels as levels on levels.name = quotas.membership_level
             where quotas.monthly_quota <> coalesce(quotas.own_quota, levels.monthly_quota)
             order by quotas.user_uuid"#
        )
        .fetch_all(&mut snapshot)
        .await?;
        let parse =
            |row: &str| UserId::parse(row).map_err(|_| PostgresError::inconsistent("chat_quotas", "user_uuid", row));
        let drift = rows.into_iter().map(|row| {
            let (quota, expected) = (Ap::new(row.monthly_quota.unsigned_abs()), Ap::new(row.expected.unsigned_abs()));
            Ok(QuotaDrift { user: parse(&row.user_uuid)?, level: row.name, quota, expected })
        });
        drift.collect()
    }

    /// Returns up to `limit` rows of users after `after`, in user order, and the watermarks of the same snapshot.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn rows_after(&self, after: Option<&UserId>, limit: u32) -> Result<Page, PostgresError> {
        let mut snapshot = self.snapshot().await?;
        let ids = sqlx::query_scalar!(
            "select user_uuid
             from chat_quotas
             where user_uuid > $1
             order by user_uuid
             limit $2",
            after.map_or("", UserId::as_str),
            i64::from(limit),
        )
        .fetch_all(&mut snapshot)
        .await?;
        Page::read(&ids, &mut snapshot).await
    }

    /// Returns the rows of these users in id order, and the watermarks of the same snapshot.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn rows_of(&self, users: &[&UserId]) -> Result<Page, PostgresError> {
        let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
        Page::read(&ids, &mut self.snapshot().await?).await
    }

    /// Returns what these users have on a meter, in id order, and the watermarks of the same snapshot.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn meter_rows_of(&self, users: &[&UserId], meter: MeterCode) -> Result<Page, PostgresError> {
        let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
        let mut snapshot = self.snapshot().await?;
        let rows = meter_accounts::rows_of(&mut snapshot, &ids, meter).await?;
        Ok(Page { rows, watermarks: watermarks(&mut snapshot).await? })
    }

    /// Begins a snapshot without a statement timeout, for reading whole tables.
    pub(in crate::store::postgres) async fn unhurried_snapshot(&self) -> Result<Transaction<'static>, PostgresError> {
        let mut snapshot = self.snapshot().await?;
        sqlx::query!("set local statement_timeout = 0").execute(&mut snapshot).await?;
        Ok(snapshot)
    }

    async fn snapshot(&self) -> Result<Transaction<'static>, PostgresError> {
        Ok(self.pool.begin_snapshot().await?)
    }
}

impl Page {
    async fn read(ids: &[String], snapshot: &mut Transaction<'_>) -> Result<Self, PostgresError> {
        let rows = chat_quotas::rows_of(snapshot, ids).await?;
        Ok(Self { rows, watermarks: watermarks(snapshot).await? })
    }
}
