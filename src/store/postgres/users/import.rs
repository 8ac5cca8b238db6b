//! Bulk import of users.
//!
//! A new user's previous usage becomes a charge of kind `import` in the log, so the totals stay the sum of the log. Its
//! row also has what the user's running windows have counted, so they are rebuilt from the log as all windows are. A
//! known user's usage never changes, but the level may, and grants may be added. So importing a file again changes
//! nothing.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{
    ap::Ap,
    calendar::{AnchorDay, Calendar, Period},
    level::LevelName,
    user_id::UserId,
    window::{WindowCount, WindowState},
};
use crate::store::postgres::{
    Postgres, PostgresError,
    connections::Transaction,
    integers::integer,
    journal::logged_windows,
    users::{
        chat_quotas::rows_of,
        import_grants::{self, ImportedGrant},
        roll::roll_due,
    },
};

/// A user to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRow {
    /// User id.
    pub user: UserId,
    /// Level name.
    pub level: LevelName,
    /// AP used so far in the current period.
    pub used: Ap,
    /// Day of the month on which the user's periods begin; `None`: the first for a new user, else as before.
    pub anchor_day: Option<AnchorDay>,
    /// What windows have counted that began before now. Those that are over are left out.
    pub windows: Vec<WindowState>,
    /// AP beside the quota. Those that have expired are left out.
    pub grants: Vec<ImportedGrant>,
}

/// Result of an import.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportReport {
    /// New users.
    pub inserted: u64,
    /// Known users whose level changed. Redis must receive these changes.
    pub updated: Vec<UserId>,
    /// Known users who got grants.
    pub given: Vec<UserId>,
    /// Grants that were made.
    pub grants: u64,
    /// Users who would have more live grants than possible. Nothing of them is imported.
    pub refused: Vec<UserId>,
}

impl Postgres {
    /// Imports users. Each may occur only once in the list.
    ///
    /// # Errors
    /// If Postgres is unavailable, or a level is not configured; none of these rows is imported.
    pub async fn import_users(
        &self,
        rows: &[ImportRow],
        calendar: Calendar,
        now: DateTime<Utc>,
    ) -> Result<ImportReport, PostgresError> {
        let users: Vec<&str> = rows.iter().map(|row| row.user.as_str()).collect();
        let levels: Vec<&str> = rows.iter().map(|row| row.level.as_str()).collect();
        let used: Vec<i32> = rows.iter().map(|row| integer(row.used.get())).collect();
        let anchor_day = |row: &ImportRow| row.anchor_day.unwrap_or(AnchorDay::FIRST);
        let period = |row: &ImportRow| calendar.first_period_at(now, anchor_day(row));
        let events: Vec<Uuid> = rows.iter().map(|row| event_of(&row.user, period(row))).collect();
        let anchors: Vec<i16> = rows.iter().map(|row| anchor_day(row).day().into()).collect();
        let periods: Vec<i32> = rows.iter().map(|row| period(row).into()).collect();
        let reset_ats: Vec<DateTime<Utc>> =
            rows.iter().map(|row| calendar.period_end(period(row), anchor_day(row))).collect();
        let windows: Vec<Option<Vec<u8>>> = rows.iter().map(|row| running(&row.windows, now)).collect();

        let mut transaction = self.pool.begin().await?;
        let created = sqlx::query_scalar!(
            r#"with batch as (
                 select user_uuid collate "C" as user_uuid, level, used, event, anchor_day, period, reset_at, windows
                 from unnest($1::text[], $2::text[], $3::int[], $4::uuid[], $5::smallint[], $6::int[], $7::timestamptz[], $9::bytea[])
                     as given (user_uuid, level, used, event, anchor_day, period, reset_at, windows)
             ),
             created as (
                 insert into chat_quotas
                     (user_uuid, membership_level, period, anchor_day, monthly_quota, monthly_used, total_used, quota_reset_at,
                      created_at, updated_at)
                 select batch.user_uuid, batch.level, batch.period, batch.anchor_day, levels.monthly_quota, batch.used, batch.used,
                        batch.reset_at, $8, $8
                 from batch
                 left join membership_levels as levels on levels.name = batch.level
                 order by batch.user_uuid
                 on conflict (user_uuid) do nothing
                 returning user_uuid
             ),
             logged as (
                 insert into chat_usage_logs
                     (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, created_at,
                      windows)
                 select batch.event, batch.user_uuid, 'import', batch.level, batch.period, 0, batch.used, 0, 'import', $8,
                        batch.windows
                 from created
                 join batch using (user_uuid)
                 where batch.used > 0
                    or batch.windows is not null
             )
             select user_uuid as "user_uuid!" from created"#,
            &users as &[&str],
            &levels as &[&str],
            &used,
            &events,
            &anchors,
            &periods,
            &reset_ats,
            now,
            &windows as &[Option<Vec<u8>>],
        )
        .fetch_all(&mut transaction)
        .await?;
        let created: HashSet<&str> = created.iter().map(String::as_str).collect();
        // Rolls first: the usage of a past period belongs to the old level.
        let names: Vec<String> = rows.iter().map(|row| row.user.to_string()).collect();
        roll_due(&mut transaction, &names, calendar, now).await?;
        let rows: Vec<&ImportRow> = rows.iter().collect();
        // Known users only: this transaction has created the others, so their grants are those of their rows.
        let refused = import_grants::users_with_too_many(&mut transaction, &rows, now).await?;
        let accepted: Vec<&ImportRow> = rows.into_iter().filter(|row| !refused.contains(&row.user)).collect();
        let updated = change_known(&mut transaction, &accepted, calendar, now).await?;
        let made = import_grants::give(&mut transaction, &accepted, now).await?;
        transaction.commit().await?;
        let grants = made.len() as u64;
        let given: HashSet<UserId> = made.into_iter().filter(|user| !created.contains(user.as_str())).collect();
        Ok(ImportReport {
            inserted: created.len() as u64,
            updated,
            given: given.into_iter().collect(),
            grants,
            refused: refused.into_iter().collect(),
        })
    }
}

/// The windows that still run, as the log has them.
fn running(windows: &[WindowState], now: DateTime<Utc>) -> Option<Vec<u8>> {
    let runs = |window: &&WindowState| window.used > 0 && now < window.start + window.key.length();
    let count = |window: &WindowState| WindowCount { key: window.key, start: window.start, counted: window.used };
    logged_windows::column(&windows.iter().filter(runs).map(count).collect::<Vec<_>>())
}

/// Changes the level and the anchor day of users whose rows differ. Their rows are locked. Returns these users.
async fn change_known(
    connection: &mut Transaction<'_>,
    rows: &[&ImportRow],
    calendar: Calendar,
    now: DateTime<Utc>,
) -> Result<Vec<UserId>, PostgresError> {
    let names: Vec<String> = rows.iter().map(|row| row.user.to_string()).collect();
    let known = rows_of(connection, &names).await?;
    let wanted: HashMap<&UserId, &ImportRow> = rows.iter().map(|row| (&row.user, *row)).collect();
    let (mut users, mut levels, mut anchors, mut reset_ats) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in known {
        let Some(new) = wanted.get(&row.user) else { continue };
        let anchor_day = new.anchor_day.unwrap_or(row.anchor_day);
        users.push(row.user.to_string());
        levels.push(new.level.to_string());
        anchors.push(i16::from(anchor_day.day()));
        reset_ats.push(calendar.period_end(row.period, anchor_day));
    }
    let updated = sqlx::query_scalar!(
        r#"with changing as (
                 select quotas.user_uuid, quotas.membership_level as level_before, levels.name as level_after, levels.monthly_quota,
                        quotas.anchor_day as anchor_before, batch.anchor_day as anchor_after, batch.reset_at
                 from unnest($1::text[], $2::text[], $3::smallint[], $4::timestamptz[])
                     as batch (user_uuid, level, anchor_day, reset_at)
                 join chat_quotas as quotas on quotas.user_uuid = batch.user_uuid
                 join membership_levels as levels on levels.name = batch.level
                 where batch.level <> quotas.membership_level
                    or batch.anchor_day <> quotas.anchor_day
             ),
             noted as (
                 insert into user_changes
                     (changed_at, changed_by, reason, user_uuid, kind, level_before, level_after, anchor_before, anchor_after)
                 select $5, 'import', '', user_uuid, 'level', level_before, level_after,
                        nullif(anchor_before, anchor_after), nullif(anchor_after, anchor_before)
                 from changing
             )
             update chat_quotas as quotas
             set membership_level = changing.level_after,
                 monthly_quota = changing.monthly_quota,
                 pending_level = case when changing.level_after <> changing.level_before then null else quotas.pending_level end,
                 anchor_day = changing.anchor_after,
                 quota_reset_at = changing.reset_at,
                 level_version = quotas.level_version + 1,
                 updated_at = greatest(quotas.updated_at, $5)
             from changing
             where quotas.user_uuid = changing.user_uuid
             returning quotas.user_uuid"#,
        &users,
        &levels,
        &anchors,
        &reset_ats,
        now,
    )
    .fetch_all(connection)
    .await?;
    Ok(updated.iter().filter_map(|user| UserId::parse(user).ok()).collect())
}

fn event_of(user: &UserId, period: Period) -> Uuid {
    let digest = Sha256::digest(format!("import\n{user}\n{}", period.id()));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}
