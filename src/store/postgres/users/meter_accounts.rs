//! What a user has on another meter than the chat: level, period and block from the row of `chat_quotas`, and what was
//! used from `meter_usage`.

use chrono::{DateTime, Utc};

use super::chat_quotas::{Loaded, QuotaRow, RawRow};
use crate::domain::{meter::MeterCode, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, connections::Transaction, integers::smallint};

/// Queries the [`RawRow`]s of the meter `$1`. `from` and `where` name the user's row `quotas`, `today` is a condition
/// on rows of the log.
macro_rules! meter_rows {
    (
        today: $today:literal,
        generation: $generation:literal,
        from: $from:literal,
        where: $where:literal,
        $($argument:expr),+ $(,)?
    ) => {
        sqlx::query_as!(
            RawRow,
            r#"select quotas.user_uuid as "user_uuid!",
                    levels.code as "level_code!",
                    pending.code as "pending_code?",
                    quotas.level_version as "level_version!",
                    coalesce(terms.quota, 0) as "monthly_quota!",
                    false as "own_quota!",
                    quotas.blocked as "blocked!",
                    quotas.period as "period!",
                    quotas.anchor_day as "anchor_day!",
                    coalesce(usage.used, 0) as "monthly_used!",
                    (
                        select coalesce(sum(total), 0)::bigint
                        from meter_usage
                        where meter_usage.user_uuid = quotas.user_uuid
                          and meter_usage.meter = $1
                    ) as "total_used!",
                    quotas.updated_at as "updated_at!",
                    quotas.grants_version as "grants_version!",
                    case when quotas.grants_version > 0 then left_of_meter_grants(quotas.user_uuid, $1) end as "grants?",
                    case when exists (select from meter_levels where meter = $1 and longest_window_minutes > 0)
                         then newest_meter_windows(quotas.user_uuid, $1, quotas.updated_at) end as "windows?",
                    (
                        select coalesce(sum(logs.ap_used), 0)
                        from chat_usage_logs as logs
                        where logs.user_uuid = quotas.user_uuid
                          and logs.meter = $1
                          and "# + $today + r#"
                          and logs.kind in ('consume', 'commit', 'late_commit')
                    ) as "used_today!",
                    "# + $generation + r#" as "generation?"
             from "# + $from + r#"
             join membership_levels as levels on levels.name = quotas.membership_level
             left join membership_levels as pending on pending.name = quotas.pending_level
             left join meter_levels as terms
               on terms.meter = $1
              and terms.membership_level = quotas.membership_level
             left join meter_usage as usage
               on usage.user_uuid = quotas.user_uuid
              and usage.meter = $1
              and usage.period = quotas.period
             where "# + $where,
            $($argument),+
        )
    };
}

impl Postgres {
    /// Like [`load`](Self::load), of a meter. A user without a row has to be created first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn load_meter(
        &self,
        partition: u16,
        users: &[UserId],
        meter: MeterCode,
        today_start: DateTime<Utc>,
    ) -> Result<Option<Loaded>, PostgresError> {
        let ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = meter_rows!(
            today: "logs.created_at >= $3",
            generation: "watermark.generation",
            from: "chat_quotas as quotas cross join flush_watermarks as watermark",
            where: "quotas.user_uuid = any ($2)
               and watermark.partition = $4",
            i16::from(meter),
            &ids as &[&str],
            today_start,
            smallint(partition),
        )
        .fetch_all(&self.pool)
        .await?;
        Loaded::of(partition, rows)
    }

    /// Like [`find`](Self::find), of a meter.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn find_meter(
        &self,
        user: &UserId,
        meter: MeterCode,
        today_start: DateTime<Utc>,
    ) -> Result<Option<QuotaRow>, PostgresError> {
        let row = meter_rows!(
            today: "logs.created_at >= $3",
            generation: "null::integer",
            from: "chat_quotas as quotas",
            where: "quotas.user_uuid = $2",
            i16::from(meter),
            user.as_str(),
            today_start,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(RawRow::parse).transpose()
    }
}

/// Returns what these users have on a meter in id order, without today's usage.
pub(in crate::store::postgres) async fn rows_of(
    connection: &mut Transaction<'_>,
    ids: &[String],
    meter: MeterCode,
) -> Result<Vec<QuotaRow>, PostgresError> {
    let rows = meter_rows!(
        today: "false",
        generation: "null::integer",
        from: "chat_quotas as quotas",
        where: "quotas.user_uuid = any ($2)
             order by quotas.user_uuid",
        i16::from(meter),
        ids,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawRow::parse).collect()
}
