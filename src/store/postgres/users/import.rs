//! Bulk import of users.
//!
//! A new user's previous usage becomes a charge of kind `import` in the log, so the totals stay the sum of the log. A
//! known user's usage never changes, but the level may. So importing a file again changes nothing.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{ap::Ap, calendar::Period, level::LevelName, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError, integers::integer};

/// A user to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRow {
    /// User id.
    pub user: UserId,
    /// Level name.
    pub level: LevelName,
    /// AP used so far in the current period.
    pub used: Ap,
}

/// Result of an import.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportReport {
    /// New users.
    pub inserted: u64,
    /// Known users whose level changed. Redis must receive these changes.
    pub updated: Vec<UserId>,
}

impl Postgres {
    /// Imports users. Each may occur only once in the list.
    ///
    /// # Errors
    /// If Postgres is unavailable, or a level is not configured; none of these rows is imported.
    pub async fn import_users(
        &self,
        rows: &[ImportRow],
        period: Period,
        reset_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<ImportReport, PostgresError> {
        let users: Vec<&str> = rows.iter().map(|row| row.user.as_str()).collect();
        let levels: Vec<&str> = rows.iter().map(|row| row.level.as_str()).collect();
        let used: Vec<i32> = rows.iter().map(|row| integer(row.used.get())).collect();
        let events: Vec<Uuid> = rows.iter().map(|row| event_of(&row.user, period)).collect();
        let period = i32::from(period);

        let mut transaction = self.pool.begin().await?;
        let inserted = sqlx::query_scalar!(
            r#"with batch as (
                 select user_uuid collate "C" as user_uuid, level, used, event
                 from unnest($1::text[], $2::text[], $3::int[], $4::uuid[]) as given (user_uuid, level, used, event)
             ),
             created as (
                 insert into chat_quotas
                     (user_uuid, membership_level, period, monthly_quota, monthly_used, total_used, quota_reset_at, created_at, updated_at)
                 select batch.user_uuid, batch.level, $5, levels.monthly_quota, batch.used, batch.used, $6, $7, $7
                 from batch
                 left join membership_levels as levels on levels.name = batch.level
                 order by batch.user_uuid
                 on conflict (user_uuid) do nothing
                 returning user_uuid
             ),
             logged as (
                 insert into chat_usage_logs
                     (uuid, user_uuid, session_id, membership_level, period, tokens_used, ap_used, overage, kind, created_at)
                 select batch.event, batch.user_uuid, 'import', batch.level, $5, 0, batch.used, 0, 'import', $7
                 from created
                 join batch using (user_uuid)
                 where batch.used > 0
             )
             select count(*) as "count!" from created"#,
            &users as &[&str],
            &levels as &[&str],
            &used,
            &events,
            period,
            reset_at,
            now,
        )
        .fetch_one(&mut transaction)
        .await?;
        // Rolls first: the usage of a past period belongs to the old level.
        sqlx::query_scalar!("select roll_chat_quotas($1, $2, $3, $4)", &users as &[&str], period, reset_at, now)
            .fetch_one(&mut transaction)
            .await?;
        let updated = sqlx::query_scalar!(
            r#"with batch as (
                 select user_uuid collate "C" as user_uuid, level
                 from unnest($1::text[], $2::text[]) as given (user_uuid, level)
             ),
             changing as (
                 select quotas.user_uuid, quotas.membership_level as level_before, levels.name as level_after, levels.monthly_quota
                 from chat_quotas as quotas
                 join batch on batch.user_uuid = quotas.user_uuid and batch.level <> quotas.membership_level
                 join membership_levels as levels on levels.name = batch.level
                 order by quotas.user_uuid
                 for update of quotas
             ),
             noted as (
                 insert into user_changes (changed_at, changed_by, reason, user_uuid, kind, level_before, level_after)
                 select $3, 'import', '', user_uuid, 'level', level_before, level_after
                 from changing
             )
             update chat_quotas as quotas
             set membership_level = changing.level_after,
                 monthly_quota = changing.monthly_quota,
                 pending_level = null,
                 level_version = quotas.level_version + 1,
                 updated_at = greatest(quotas.updated_at, $3)
             from changing
             where quotas.user_uuid = changing.user_uuid
             returning quotas.user_uuid"#,
            &users as &[&str],
            &levels as &[&str],
            now,
        )
        .fetch_all(&mut transaction)
        .await?;
        transaction.commit().await?;
        let updated = updated.iter().filter_map(|user| UserId::parse(user).ok()).collect();
        Ok(ImportReport { inserted: u64::try_from(inserted).unwrap_or_default(), updated })
    }
}

fn event_of(user: &UserId, period: Period) -> Uuid {
    let digest = Sha256::digest(format!("import\n{user}\n{}", period.id()));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}
