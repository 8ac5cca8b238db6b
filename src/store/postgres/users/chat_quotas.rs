//! `chat_quotas`: one row per user, for the current period.

use chrono::{DateTime, Utc};

use crate::domain::{
    ap::Ap,
    calendar::{AnchorDay, Calendar, Period},
    grant::Grants,
    level::LevelCode,
    user_id::UserId,
    window::WindowState,
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    integers::smallint,
    journal::logged_windows,
    users::{left_of_grants, roll::parse_anchor_day},
};

/// A user's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRow {
    /// User id.
    pub user: UserId,
    /// Level in the row's period.
    pub level: LevelCode,
    /// Number of level changes.
    pub level_version: u32,
    /// Level of the next period, if it differs.
    pub pending: Option<LevelCode>,
    /// AP per period.
    pub quota: Ap,
    /// Whether `quota` is the user's own, not that of the level.
    pub own_quota: bool,
    /// Whether new messages are refused.
    pub blocked: bool,
    /// Period that `used` counts in. It may be over: the row rolls when it is next needed.
    pub period: Period,
    /// Day of the month on which the user's periods begin.
    pub anchor_day: AnchorDay,
    /// AP charged in that period and flushed.
    pub used: Ap,
    /// AP charged in all periods and flushed.
    pub total_used: u64,
    /// AP charged today by messages and flushed. Imports and adjustments are of other days.
    pub used_today: Ap,
    /// The newest window of each length and unit, as the log has it. From the same snapshot as the row.
    pub windows: Vec<WindowState>,
    /// Grants of which something is left, with those that have expired. From the same snapshot as the row.
    pub grants: Grants,
    /// Time of the last flush, roll or level change of the row.
    pub updated_at: DateTime<Utc>,
}

/// Where a new user begins: in the calendar month, with the lowest level that is offered.
#[derive(Debug, Clone, Copy)]
pub struct NewUser {
    /// The calendar of periods.
    pub calendar: Calendar,
    /// Current time.
    pub now: DateTime<Utc>,
}

impl NewUser {
    /// The user's first period.
    #[must_use]
    pub fn period(&self) -> Period {
        self.calendar.month_at(self.now)
    }

    /// End of the first period.
    #[must_use]
    pub fn reset_at(&self) -> DateTime<Utc> {
        self.calendar.period_end(self.period(), AnchorDay::FIRST)
    }
}

/// Users, and their partition's generation in the same snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Generation of the partition.
    pub generation: u32,
    /// One row per user.
    pub rows: Vec<QuotaRow>,
}

pub(super) struct RawRow {
    pub(super) user_uuid: String,
    pub(super) level_code: i16,
    pub(super) pending_code: Option<i16>,
    pub(super) level_version: i32,
    pub(super) monthly_quota: i32,
    pub(super) own_quota: bool,
    pub(super) blocked: bool,
    pub(super) period: i32,
    pub(super) anchor_day: i16,
    pub(super) monthly_used: i64,
    pub(super) total_used: i64,
    pub(super) used_today: i64,
    pub(super) grants_version: i64,
    pub(super) grants: Option<Vec<i64>>,
    pub(super) windows: Option<Vec<i64>>,
    pub(super) updated_at: DateTime<Utc>,
    /// Generation of the user's partition, in a load.
    pub(super) generation: Option<i32>,
}

/// Queries [`RawRow`]s. Only this macro lists the columns of a user. `from` and `where` name the user's row `quotas`.
macro_rules! raw_rows {
    (
        $(with: $with:literal,)?
        used_today: $used_today:literal,
        generation: $generation:literal,
        from: $from:literal,
        where: $where:literal,
        $($argument:expr),+ $(,)?
    ) => {
        sqlx::query_as!(
            RawRow,
            $($with +)? r#"select quotas.user_uuid as "user_uuid!",
                    levels.code as "level_code!",
                    pending.code as "pending_code?",
                    quotas.level_version as "level_version!",
                    quotas.monthly_quota as "monthly_quota!",
                    quotas.own_quota is not null as "own_quota!",
                    quotas.blocked as "blocked!",
                    quotas.period as "period!",
                    quotas.anchor_day as "anchor_day!",
                    quotas.monthly_used as "monthly_used!",
                    quotas.total_used as "total_used!",
                    quotas.updated_at as "updated_at!",
                    quotas.grants_version as "grants_version!",
                    case when quotas.grants_version > 0 then left_of_grants(quotas.user_uuid) end as "grants?",
                    case when exists (select from membership_levels where longest_window_minutes > 0)
                         then newest_windows(quotas.user_uuid, quotas.updated_at) end as "windows?",
                    "# + $used_today + r#" as "used_today!",
                    "# + $generation + r#" as "generation?"
             from "# + $from + "
             join membership_levels as levels on levels.name = quotas.membership_level
             left join membership_levels as pending on pending.name = quotas.pending_level
             where " + $where,
            $($argument),+
        )
    };
}

impl Loaded {
    pub(super) fn of(partition: u16, rows: Vec<RawRow>) -> Result<Option<Self>, PostgresError> {
        let Some(any) = rows.first() else { return Ok(None) };
        let generation = any
            .generation
            .and_then(|generation| u32::try_from(generation).ok())
            .ok_or_else(|| PostgresError::inconsistent("flush_watermarks", "generation", partition))?;
        Ok(Some(Self { generation, rows: rows.into_iter().map(RawRow::parse).collect::<Result<_, _>>()? }))
    }
}

impl Postgres {
    /// Returns the existing rows of these users of one partition, and the partition's generation. All come from one
    /// snapshot, so a concurrent flush is neither missed nor counted twice. Returns `None` if no row exists.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn load(
        &self,
        partition: u16,
        users: &[UserId],
        today_start: DateTime<Utc>,
    ) -> Result<Option<Loaded>, PostgresError> {
        let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = raw_rows!(
            used_today: "case when quotas.updated_at >= $2 then (
                        select coalesce(sum(logs.ap_used), 0)
                        from chat_usage_logs as logs
                        where logs.user_uuid = quotas.user_uuid
                          and logs.created_at >= $2
                          and logs.meter = 0
                          and logs.kind in ('consume', 'commit', 'late_commit')
                    ) else 0 end",
            generation: "watermark.generation",
            from: "chat_quotas as quotas cross join flush_watermarks as watermark",
            where: "quotas.user_uuid = any ($1)
               and watermark.partition = $3",
            &ids as &[&str],
            today_start,
            smallint(partition),
        )
        .fetch_all(&self.pool)
        .await?;
        Loaded::of(partition, rows)
    }

    /// Like [`load`](Self::load), but creates missing rows, except those of forgotten users.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn load_or_create(
        &self,
        partition: u16,
        users: &[UserId],
        first: &NewUser,
        today_start: DateTime<Utc>,
    ) -> Result<Loaded, PostgresError> {
        let mut forgotten = 0;
        loop {
            let found = self.try_load_or_create(partition, users, first, today_start).await?;
            if let Some(loaded) = found.filter(|loaded| loaded.rows.len() + forgotten >= users.len()) {
                return Ok(loaded);
            }
            // Another gate has created a row that only the next snapshot sees. Every row is joined with the watermark,
            // so a missing watermark is the error to end with.
            let generation = self.watermark(partition).await?.generation;
            forgotten = self.forgotten_of(users).await?.len();
            if forgotten == users.len() {
                return Ok(Loaded { generation, rows: Vec::new() });
            }
        }
    }

    async fn try_load_or_create(
        &self,
        partition: u16,
        users: &[UserId],
        first: &NewUser,
        today_start: DateTime<Utc>,
    ) -> Result<Option<Loaded>, PostgresError> {
        let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = raw_rows!(
            with: r#"with wanted as (
                 select user_uuid collate "C" as user_uuid
                 from unnest($1::text[]) as given (user_uuid)
             ),
             created as (
                 insert into chat_quotas (user_uuid, membership_level, period, monthly_quota, quota_reset_at, created_at, updated_at)
                 select wanted.user_uuid, lowest.name, $4, lowest.monthly_quota, $5, $6, $6
                 from wanted
                 cross join (
                     select name, monthly_quota
                     from membership_levels
                     where not retired
                     order by monthly_quota, code
                     limit 1
                 ) as lowest
                 where not exists (select from chat_quotas where chat_quotas.user_uuid = wanted.user_uuid)
                 order by user_uuid
                 on conflict (user_uuid) do nothing
                 returning *
             ),
             found as (
                 select chat_quotas.*
                 from wanted
                 join chat_quotas using (user_uuid)
                 union all
                 select * from created
             )
             "#,
            used_today: "case when quotas.updated_at >= $2 then (
                        select coalesce(sum(logs.ap_used), 0)
                        from chat_usage_logs as logs
                        where logs.user_uuid = quotas.user_uuid
                          and logs.created_at >= $2
                          and logs.meter = 0
                          and logs.kind in ('consume', 'commit', 'late_commit')
                    ) else 0 end",
            generation: "watermark.generation",
            from: "found as quotas cross join flush_watermarks as watermark",
            where: "watermark.partition = $3",
            &ids as &[&str],
            today_start,
            smallint(partition),
            i32::from(first.period()),
            first.reset_at(),
            first.now,
        )
        .fetch_all(&self.pool)
        .await?;
        Loaded::of(partition, rows)
    }

    /// Returns a user's row; `None` for an unknown user.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn find(&self, user: &UserId, today_start: DateTime<Utc>) -> Result<Option<QuotaRow>, PostgresError> {
        find(&self.pool, user, today_start).await
    }
}

pub(in crate::store::postgres) async fn find<'e>(
    connection: impl sqlx::PgExecutor<'e>,
    user: &UserId,
    today_start: DateTime<Utc>,
) -> Result<Option<QuotaRow>, PostgresError> {
    let row = raw_rows!(
        used_today: "(
                        select coalesce(sum(logs.ap_used), 0)
                        from chat_usage_logs as logs
                        where logs.user_uuid = quotas.user_uuid
                          and logs.created_at >= $2
                          and logs.meter = 0
                          and logs.kind in ('consume', 'commit', 'late_commit')
                    )",
        generation: "null::integer",
        from: "chat_quotas as quotas",
        where: "quotas.user_uuid = $1",
        user.as_str(),
        today_start,
    )
    .fetch_optional(connection)
    .await?;
    row.map(RawRow::parse).transpose()
}

/// Returns the rows of these users in id order, without today's usage.
pub(in crate::store::postgres) async fn rows_of(
    connection: &mut Transaction<'_>,
    ids: &[String],
) -> Result<Vec<QuotaRow>, PostgresError> {
    let rows = raw_rows!(
        used_today: "0::bigint",
        generation: "null::integer",
        from: "chat_quotas as quotas",
        where: "quotas.user_uuid = any ($1)
             order by quotas.user_uuid",
        ids,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawRow::parse).collect()
}

impl RawRow {
    pub(super) fn parse(self) -> Result<QuotaRow, PostgresError> {
        let wrong = |column| PostgresError::inconsistent("chat_quotas", column, &self.user_uuid);
        let code = |code: i16| u8::try_from(code).ok().and_then(LevelCode::new);
        let ap = |amount: i64| u32::try_from(amount).map(Ap::new);
        Ok(QuotaRow {
            user: UserId::parse(&self.user_uuid).map_err(|_| wrong("user_uuid"))?,
            level: code(self.level_code).ok_or_else(|| wrong("membership_level"))?,
            level_version: u32::try_from(self.level_version).map_err(|_| wrong("level_version"))?,
            pending: self.pending_code.and_then(code),
            quota: ap(self.monthly_quota.into()).map_err(|_| wrong("monthly_quota"))?,
            own_quota: self.own_quota,
            blocked: self.blocked,
            period: parse_period(self.period).ok_or_else(|| wrong("period"))?,
            anchor_day: parse_anchor_day(self.anchor_day).ok_or_else(|| wrong("anchor_day"))?,
            used: ap(self.monthly_used).map_err(|_| wrong("monthly_used"))?,
            total_used: u64::try_from(self.total_used).map_err(|_| wrong("total_used"))?,
            used_today: ap(self.used_today).map_err(|_| wrong("used_today"))?,
            grants: left_of_grants::parse(self.grants_version, self.grants).ok_or_else(|| wrong("grants"))?,
            windows: logged_windows::parse(self.windows).ok_or_else(|| wrong("windows"))?,
            updated_at: self.updated_at,
        })
    }
}

pub(in crate::store::postgres) fn parse_period(id: i32) -> Option<Period> {
    u32::try_from(id).ok().and_then(|id| Period::from_id(id).ok())
}
