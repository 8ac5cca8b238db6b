//! Reads a user's quota.

use chrono::{DateTime, Utc};

use crate::gate::{Gate, GateError, Inner, error::unexpected};
use crate::{
    domain::{
        ap::Ap,
        calendar::Calendar,
        level::Levels,
        quota::{Quota, Source},
        user_id::UserId,
        user_limits::UserLimits,
    },
    store::{
        postgres::QuotaRow,
        redis::{Hold, Operation, ReplyStatus},
    },
};

impl Gate {
    /// Returns a user's quota from Redis, or from Postgres while Redis is unavailable (see [`Quota::source`]). A new
    /// user gets the lowest level.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if both are unavailable.
    pub async fn quota(&self, user: &UserId) -> Result<Quota, GateError> {
        match self.quota_and_holds(user).await {
            Ok((quota, _)) => Ok(quota),
            Err(away) => self.0.quota_from_postgres(user).await.ok_or(away),
        }
    }

    /// Returns a user's quota and live holds, from Redis only.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Redis is unavailable.
    pub async fn quota_and_holds(&self, user: &UserId) -> Result<(Quota, Vec<Hold>), GateError> {
        let answer = self.0.call(user, Operation::Peek).await?;
        match answer.status {
            ReplyStatus::Ok => {
                let quota = Inner::quota_of(user, &answer);
                Ok((quota, answer.record.holds))
            }
            other => Err(unexpected("peek", other)),
        }
    }
}

impl Inner {
    pub(in crate::gate) async fn quota_from_postgres(&self, user: &UserId) -> Option<Quota> {
        let now = self.now();
        let today = self.calendar.day_start(self.calendar.day_at(now));
        let row = self
            .postgres
            .find(user, today)
            .await
            .inspect_err(|error| tracing::warn!(%error, "Postgres is unavailable too"))
            .ok()??;
        let levels = self.levels.get();
        Some(row_as_quota(row, &levels, self.calendar, now))
    }
}

/// Returns the row as a quota, rolled if its period is over, but without its pending level.
fn row_as_quota(row: QuotaRow, levels: &Levels, calendar: Calendar, now: DateTime<Utc>) -> Quota {
    let current = row.period.at(calendar.day_at(now), row.anchor_day);
    let over = row.period < current;
    let limits = levels.coded(row.level).map(|level| level.limits.clone()).unwrap_or_default();
    Quota {
        user: row.user,
        level: row.level,
        period: current,
        anchor_day: row.anchor_day,
        quota: row.quota,
        own_quota: row.own_quota,
        blocked: row.blocked,
        used: if over { Ap::ZERO } else { row.used },
        held: Ap::ZERO,
        used_today: row.used_today,
        total_used: row.total_used,
        version: u64::try_from(row.updated_at.timestamp_millis()).unwrap_or_default(),
        as_of: row.updated_at,
        source: Source::Postgres,
        limits: UserLimits::without_redis(&limits, &row.windows, &row.grants, now),
    }
}
