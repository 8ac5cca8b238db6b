//! Quota: what a user has, has used and has left.

use crate::gate::{Gate, GateError, Inner, error::unexpected};
use crate::{
    domain::{
        ap::Ap,
        calendar::Calendar,
        quota::{Quota, Source},
        user_id::UserId,
    },
    store::{
        postgres::QuotaRow,
        redis::{Hold, Operation, ReplyStatus},
    },
};

impl Gate {
    /// A user's quota: from Redis, or from Postgres while Redis is away (see [`Quota::source`]). A user seen for the
    /// first time gets the lowest level.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] when both are away.
    pub async fn quota(&self, user: &UserId) -> Result<Quota, GateError> {
        match self.quota_and_holds(user).await {
            Ok((quota, _)) => Ok(quota),
            Err(away) => self.0.quota_from_postgres(user).await.ok_or(away),
        }
    }

    /// A user's quota with the live holds, from Redis only.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] when Redis is away.
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
            .inspect_err(|error| tracing::warn!(%error, "Postgres is away too"))
            .ok()??;
        Some(row_as_quota(row, self.calendar, now))
    }
}

/// What the row will be once it is rolled, if its period is over. A pending level is left to the roll.
fn row_as_quota(row: QuotaRow, calendar: Calendar, now: chrono::DateTime<chrono::Utc>) -> Quota {
    let current = calendar.period_at(now);
    let over = row.period < current;
    Quota {
        user: row.user,
        level: row.level,
        period: if over { current } else { row.period },
        quota: row.quota,
        used: if over { Ap::ZERO } else { row.used },
        held: Ap::ZERO,
        used_today: row.used_today,
        total_used: row.total_used,
        version: u64::try_from(row.updated_at.timestamp_millis()).unwrap_or_default(),
        as_of: row.updated_at,
        source: Source::Postgres,
    }
}
