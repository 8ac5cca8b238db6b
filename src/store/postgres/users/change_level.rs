//! Changes a user's level in one transaction. The row rolls first if its period is over.

use chrono::{DateTime, Utc};

use crate::domain::{
    ap::Ap,
    author::Author,
    calendar::{AnchorDay, Period},
    level::LevelName,
    level_change::{Effective, Timing},
    user_id::UserId,
};
use crate::store::postgres::{
    NewUser, Postgres, PostgresError, QuotaRow,
    connections::Transaction,
    users::{
        chat_quotas::find,
        roll::{Rolls, roll_due},
        user_changes::{ChangedLevel, note_level},
    },
};

/// A user's row before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelChange {
    /// Row before, already in the current period.
    pub before: QuotaRow,
    /// Row after.
    pub after: QuotaRow,
}

/// What a user gets.
#[derive(Debug, Clone, Copy)]
pub struct NewLevel<'a> {
    /// The level.
    pub level: &'a LevelName,
    /// When it takes effect.
    pub effective: Effective,
    /// Day of the month on which the user's periods begin from now on; `None`: as before. The current period then has
    /// 28 to 59 days.
    pub anchor_day: Option<AnchorDay>,
    /// A period that begins now, although the one before it is not over: a payment was made for it. Ignored unless it
    /// is later than the user's period, and has begun.
    pub begins: Option<Period>,
}

impl Postgres {
    /// Changes a user's level. Creates the row of an unknown user first. Quotas are those of Postgres, which may be
    /// newer than the caller's. Returns `None` and changes nothing if the row's level version is not `if_version`.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn change_level(
        &self,
        user: &UserId,
        target: NewLevel<'_>,
        if_version: Option<u32>,
        author: &Author,
        first: &NewUser,
        today_start: DateTime<Utc>,
    ) -> Result<Option<LevelChange>, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        create(&mut transaction, user, first).await?;
        sqlx::query!("select from chat_quotas where user_uuid = $1 for update", user.as_str())
            .execute(&mut transaction)
            .await?;
        let before = roll(&mut transaction, user, first, today_start).await?;
        if if_version.is_some_and(|seen| seen != before.level_version) {
            return Ok(None);
        }
        let change = change(&mut transaction, before, target, author, first, today_start).await?;
        transaction.commit().await?;
        Ok(Some(change))
    }
}

/// Creates the row of an unknown user, who must not be forgotten.
pub(super) async fn create<'e>(
    connection: impl sqlx::PgExecutor<'e>,
    user: &UserId,
    first: &NewUser,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, quota_reset_at, created_at, updated_at)
         select $1, name, $2, monthly_quota, $3, $4, $4
         from membership_levels
         where not retired
         order by monthly_quota, code
         limit 1
         on conflict (user_uuid) do nothing",
        user.as_str(),
        i32::from(first.period()),
        first.reset_at(),
        first.now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Rolls a locked row if its period is over, and returns it.
pub(super) async fn roll(
    connection: &mut Transaction<'_>,
    user: &UserId,
    first: &NewUser,
    today_start: DateTime<Utc>,
) -> Result<QuotaRow, PostgresError> {
    roll_due(connection, &[user.to_string()], first.calendar, first.now).await?;
    existing(connection, user, today_start).await
}

/// Changes the level of a locked row in the current period, and records the change.
pub(super) async fn change(
    connection: &mut Transaction<'_>,
    before: QuotaRow,
    new: NewLevel<'_>,
    author: &Author,
    first: &NewUser,
    today_start: DateTime<Utc>,
) -> Result<LevelChange, PostgresError> {
    let (user, target) = (&before.user, new.level);
    let anchor_day = new.anchor_day.unwrap_or(before.anchor_day);
    if anchor_day != before.anchor_day {
        sqlx::query!(
            "update chat_quotas
             set anchor_day = $2,
                 quota_reset_at = $3
             where user_uuid = $1",
            user.as_str(),
            i16::from(anchor_day.day()),
            first.calendar.period_end(before.period, anchor_day),
        )
        .execute(&mut *connection)
        .await?;
    }
    let begins = new.begins.filter(|period| before.may_begin(*period, first));
    if let Some(period) = begins {
        let mut rolls = Rolls::default();
        rolls.add(user.as_str(), period, anchor_day, first.calendar);
        rolls.roll(connection, first.now).await?;
    }
    let quota = sqlx::query_scalar!("select monthly_quota from membership_levels where name = $1", target.as_str())
        .fetch_one(&mut *connection)
        .await?;
    // A period that begins now is paid for at the new level.
    let effective = if begins.is_some() { Effective::Now } else { new.effective };
    let timing = effective.timing(level_quota(connection, &before).await?, Ap::new(quota.unsigned_abs()));
    match timing {
        Timing::Now => {
            sqlx::query!(
                "update chat_quotas
                 set membership_level = $2,
                     monthly_quota = $3,
                     pending_level = null,
                     level_version = level_version + 1,
                     updated_at = greatest(updated_at, $4)
                 where user_uuid = $1",
                user.as_str(),
                target.as_str(),
                quota,
                first.now,
            )
            .execute(&mut *connection)
            .await?;
        }
        Timing::NextPeriod => {
            sqlx::query!(
                "update chat_quotas
                 set pending_level = $2,
                     level_version = level_version + 1,
                     updated_at = greatest(updated_at, $3)
                 where user_uuid = $1",
                user.as_str(),
                target.as_str(),
                first.now,
            )
            .execute(&mut *connection)
            .await?;
        }
    }
    let after = existing(connection, user, today_start).await?;
    let later = (timing == Timing::NextPeriod).then(|| after.period.next(anchor_day));
    let name_before =
        sqlx::query_scalar!("select name from membership_levels where code = $1", i16::from(before.level.get()))
            .fetch_one(&mut *connection)
            .await?;
    let changed = ChangedLevel {
        levels: (&name_before, target),
        anchors: (anchor_day != before.anchor_day).then_some((before.anchor_day, anchor_day)),
        effective: later,
    };
    note_level(connection, user, &changed, author, first.now).await?;
    Ok(LevelChange { before, after })
}

impl QuotaRow {
    /// Whether a period can begin now: it is later than that of the row, and has begun.
    pub(super) fn may_begin(&self, period: Period, first: &NewUser) -> bool {
        self.period < period && period <= Period::beginning_on(first.calendar.day_at(first.now))
    }
}

/// The quota that the user has by the level. For a user with a quota of the user's own, that is not the row's.
async fn level_quota(connection: &mut Transaction<'_>, row: &QuotaRow) -> Result<Ap, PostgresError> {
    if !row.own_quota {
        return Ok(row.quota);
    }
    let code = i16::from(row.level.get());
    let quota = sqlx::query_scalar!("select monthly_quota from membership_levels where code = $1", code);
    Ok(Ap::new(quota.fetch_one(&mut *connection).await?.unsigned_abs()))
}

pub(super) async fn existing(
    connection: &mut Transaction<'_>,
    user: &UserId,
    today_start: DateTime<Utc>,
) -> Result<QuotaRow, PostgresError> {
    let row = find(connection, user, today_start).await?;
    // Every other user has a row: it was created before.
    row.ok_or_else(|| PostgresError::Forgotten(user.clone()))
}
