//! Rolls rows into later periods. Only `roll_chat_quotas` changes the period of a row.
//!
//! Each user has an anchor day, so rows that are due at the same time roll into different periods.

use chrono::{DateTime, Utc};

use crate::domain::calendar::{AnchorDay, Calendar, Period};
use crate::store::postgres::{PostgresError, connections::Transaction, users::chat_quotas::parse_period};

/// Rows to roll, and the period of each.
#[derive(Debug, Default)]
pub(in crate::store::postgres) struct Rolls {
    users: Vec<String>,
    periods: Vec<i32>,
    reset_ats: Vec<DateTime<Utc>>,
}

impl Rolls {
    /// Adds a row that rolls into `period`, unless it is in that period or a later one.
    pub(in crate::store::postgres) fn add(
        &mut self,
        user: &str,
        period: Period,
        anchor_day: AnchorDay,
        calendar: Calendar,
    ) {
        self.users.push(user.to_owned());
        self.periods.push(period.into());
        self.reset_ats.push(calendar.period_end(period, anchor_day));
    }

    /// Rolls the rows, and returns how many were due.
    pub(in crate::store::postgres) async fn roll(
        &self,
        connection: &mut Transaction<'_>,
        now: DateTime<Utc>,
    ) -> Result<i64, PostgresError> {
        if self.users.is_empty() {
            return Ok(0);
        }
        let rolled = sqlx::query_scalar!(
            r#"select roll_chat_quotas($1, $2, $3::timestamptz[], $4) as "rolled!""#,
            &self.users,
            &self.periods,
            &self.reset_ats,
            now,
        )
        .fetch_one(connection)
        .await?;
        Ok(rolled)
    }
}

/// Locks these rows, and rolls those whose period is over.
pub(in crate::store::postgres) async fn roll_due(
    connection: &mut Transaction<'_>,
    users: &[String],
    calendar: Calendar,
    now: DateTime<Utc>,
) -> Result<i64, PostgresError> {
    let rows = sqlx::query!(
        "select user_uuid, period, anchor_day
         from chat_quotas
         where user_uuid = any ($1)
         order by user_uuid
         for update",
        users,
    )
    .fetch_all(&mut *connection)
    .await?;
    let (today, mut rolls) = (calendar.day_at(now), Rolls::default());
    for row in rows {
        let wrong = |column| PostgresError::inconsistent("chat_quotas", column, &row.user_uuid);
        let period = parse_period(row.period).ok_or_else(|| wrong("period"))?;
        let anchor_day = parse_anchor_day(row.anchor_day).ok_or_else(|| wrong("anchor_day"))?;
        let current = period.at(today, anchor_day);
        if current > period {
            rolls.add(&row.user_uuid, current, anchor_day, calendar);
        }
    }
    rolls.roll(connection, now).await
}

/// Reads an anchor day.
pub(in crate::store::postgres) fn parse_anchor_day(day: i16) -> Option<AnchorDay> {
    u8::try_from(day).ok().and_then(|day| AnchorDay::new(day).ok())
}
