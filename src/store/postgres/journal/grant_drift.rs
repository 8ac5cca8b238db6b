//! Proves from one snapshot that what grants have paid is the sum of the log (invariant I11).

use crate::store::postgres::{Postgres, PostgresError};

/// A grant that differs from the log, or of which less than nothing is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantDrift {
    /// User who has it.
    pub user: String,
    /// Its number.
    pub number: i64,
    /// AP that it had at first.
    pub granted: i64,
    /// AP charged, by the log and by the grant.
    pub charged: (i64, i64),
    /// AP transferred, by the log and by the grant.
    pub transferred: (i64, i64),
}

impl Postgres {
    /// Returns every grant that differs from the log. Of a grant that is older than the log, the log may have less.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn grant_drift(&self) -> Result<Vec<GrantDrift>, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let rows = sqlx::query!(
            r#"with whole as (
                 -- Grants since then have all their charges in the log.
                 select coalesce(log_begins_on::timestamptz + interval '2 days', '-infinity') as since from gate_settings
             ),
             logged as (
                 select logs.user_uuid,
                        part.number,
                        sum(part.ap) filter (where logs.kind <> 'transfer') as charged,
                        sum(part.ap) filter (where logs.kind = 'transfer') as transferred
                 from chat_usage_logs as logs
                 cross join lateral unnest(logs.grant_numbers, logs.grant_aps) as part (number, ap)
                 where logs.grant_numbers is not null
                 group by logs.user_uuid, part.number
             ),
             compared as (
                 select coalesce(grants.user_uuid, logged.user_uuid) as user_uuid,
                        coalesce(grants.number, logged.number) as number,
                        coalesce(grants.granted, 0) as granted,
                        coalesce(logged.charged, 0)::bigint as logged_charged,
                        coalesce(grants.charged, 0) as charged,
                        coalesce(logged.transferred, 0)::bigint as logged_transferred,
                        coalesce(grants.transferred, 0) as transferred,
                        grants.created_at >= coalesce((select since from whole), '-infinity') as is_whole
                 from (select * from grants where number is not null) as grants
                 full join logged using (user_uuid, number)
             )
             select user_uuid as "user!", number as "number!", granted as "granted!",
                    logged_charged as "logged_charged!", charged as "charged!",
                    logged_transferred as "logged_transferred!", transferred as "transferred!"
             from compared
             where granted < charged + transferred
                or logged_charged > charged
                or logged_transferred > transferred
                or (is_whole and (logged_charged, logged_transferred) <> (charged, transferred))
             order by 1, 2"#
        )
        .fetch_all(&mut snapshot)
        .await?;
        let drift = rows.into_iter().map(|row| GrantDrift {
            user: row.user,
            number: row.number,
            granted: row.granted,
            charged: (row.logged_charged, row.charged),
            transferred: (row.logged_transferred, row.transferred),
        });
        Ok(drift.collect())
    }

    /// Sets what grants have paid to the sum of the log, where the log has more. Returns how many differed.
    ///
    /// # Errors
    /// If Postgres is unavailable; what was repaired stays repaired.
    pub async fn repair_grants(&self) -> Result<u64, PostgresError> {
        let mut repaired = 0;
        for drift in self.grant_drift().await? {
            if drift.charged.0 <= drift.charged.1 && drift.transferred.0 <= drift.transferred.1 {
                continue;
            }
            let done = sqlx::query!(
                "update grants
                 set charged = greatest(charged, $3),
                     transferred = greatest(transferred, $4)
                 where user_uuid = $1
                   and number = $2",
                drift.user,
                drift.number,
                drift.charged.0,
                drift.transferred.0,
            )
            .execute(&self.pool)
            .await?;
            repaired += done.rows_affected();
        }
        Ok(repaired)
    }
}
