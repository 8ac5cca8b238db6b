//! Adjustments: what a repair writes. Their rows in the log have the kind `adjustment`.

use chrono::{DateTime, Utc};

use crate::domain::{
    calendar::Calendar,
    level::Levels,
    usage::{UsageEvent, UsageKind},
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    integers::integer,
    journal::{
        chat_usage_logs::{self, Mode},
        totals,
    },
};

impl Postgres {
    /// Adds a charge that Postgres missed to the log and the totals.
    ///
    /// # Errors
    /// If Postgres is unavailable or refuses the row; nothing is changed.
    pub async fn adjust(
        &self,
        event: &UsageEvent,
        levels: &Levels,
        calendar: Calendar,
        now: DateTime<Utc>,
    ) -> Result<bool, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        let written = chat_usage_logs::write(&mut transaction, &[event], levels, Mode::IfAbsent).await?;
        totals::add(&mut transaction, &written.new, levels, calendar, now).await?;
        let added = !written.new.is_empty();
        transaction.commit().await?;
        Ok(added)
    }

    /// Adds a row to the log only; the totals include it already.
    ///
    /// # Errors
    /// If Postgres is unavailable.
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
            integer(ap),
            UsageKind::Adjustment.as_str(),
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Adds a period's missing AP to a user's totals, like a charge of that period, but leaves the total over all
    /// periods unchanged. The period needs no row yet.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed.
    pub async fn raise_period(
        &self,
        event: &UsageEvent,
        levels: &Levels,
        calendar: Calendar,
        now: DateTime<Utc>,
    ) -> Result<(), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        totals::add(&mut transaction, &[event], levels, calendar, now).await?;
        // The total over all periods may be correct. If not, it has a drift of its own.
        raise_total(&mut transaction, event.user.as_str(), -i64::from(event.ap.get()), now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Adds the AP missing from a user's total over all periods.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed.
    pub async fn raise_total(&self, user: &str, ap: i64, now: DateTime<Utc>) -> Result<(), PostgresError> {
        let mut transaction = self.pool.begin().await?;
        raise_total(&mut transaction, user, ap, now).await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn raise_total(
    connection: &mut Transaction<'_>,
    user: &str,
    ap: i64,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "update chat_quotas
         set total_used = total_used + $2,
             updated_at = greatest(updated_at, $3)
         where user_uuid = $1",
        user,
        ap,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
