//! Exports what every table has about a user: rows as JSON, one at a time, so a million of them take no memory.

use futures_util::TryStreamExt;

use crate::domain::user_id::UserId;
use crate::store::postgres::{Postgres, PostgresError};

/// Passes the rows that a query of `$1`, the user, selects to `each`.
macro_rules! export {
    ($snapshot:ident, $each:ident, $user:ident, $table:literal, $query:literal) => {
        let mut rows =
            sqlx::query_scalar!(r#"select exported::text as "exported!" from ("# + $query + ") as rows", $user)
                .fetch(&mut $snapshot);
        while let Some(row) = rows.try_next().await? {
            $each($table, &row);
        }
        drop(rows);
    };
}

impl Postgres {
    /// Passes each row about a user to `each`, with the name of its table, in one snapshot. Rows of a table follow each
    /// other. Ids of other users are left out.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    #[expect(clippy::too_many_lines, reason = "one query for each table")]
    pub async fn export(&self, user: &UserId, mut each: impl FnMut(&'static str, &str)) -> Result<(), PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let user = user.as_str();
        export!(
            snapshot,
            each,
            user,
            "chat_quotas",
            "select to_jsonb(quotas) as exported from chat_quotas as quotas where user_uuid = $1"
        );
        export!(
            snapshot,
            each,
            user,
            "chat_quota_months",
            "select to_jsonb(months) as exported from chat_quota_months as months where user_uuid = $1 order by period"
        );
        export!(
            snapshot,
            each,
            user,
            "meter_usage",
            "select to_jsonb(usage) || jsonb_build_object('meter', meters.name) as exported
             from meter_usage as usage join meters on meters.code = usage.meter
             where user_uuid = $1 order by usage.meter, period"
        );
        export!(
            snapshot,
            each,
            user,
            "grants",
            "select to_jsonb(grants) - 'received_from' as exported from grants where user_uuid = $1 order by created_at, id"
        );
        export!(
            snapshot,
            each,
            user,
            "subscriptions",
            "select to_jsonb(subscriptions) as exported from subscriptions where user_uuid = $1"
        );
        export!(
            snapshot,
            each,
            user,
            "subscription_events",
            "select to_jsonb(events) - 'state_before' as exported from subscription_events as events
             where user_uuid = $1 order by received"
        );
        export!(
            snapshot,
            each,
            user,
            "user_changes",
            "select to_jsonb(changes) as exported from user_changes as changes
             where user_uuid = $1 order by changed_at, id"
        );
        export!(
            snapshot,
            each,
            user,
            "rollout_changes",
            "select jsonb_build_object('changed_at', changed_at, 'always_in', $1 = any (always_in),
                 'always_out', $1 = any (always_out)) as exported
             from rollout_changes where $1 = any (always_in || always_out) order by id"
        );
        export!(
            snapshot,
            each,
            user,
            "notifications",
            "select to_jsonb(notifications) as exported from notifications where user_uuid = $1 order by created_at"
        );
        export!(
            snapshot,
            each,
            user,
            "inbox",
            "select to_jsonb(inbox) as exported from inbox where user_uuid = $1 order by accepted_at"
        );
        export!(
            snapshot,
            each,
            user,
            "dual_writes",
            "select to_jsonb(writes) as exported from dual_writes as writes where user_uuid = $1 order by charged_at"
        );
        export!(
            snapshot,
            each,
            user,
            "dead_letters",
            "select to_jsonb(letters) || jsonb_build_object('payload', encode(payload, 'escape')) as exported
             from dead_letters as letters where user_uuid = $1 order by id"
        );
        export!(
            snapshot,
            each,
            user,
            "chat_usage_logs",
            "select to_jsonb(logs) as exported from chat_usage_logs as logs where user_uuid = $1 order by created_at"
        );
        Ok(())
    }
}
