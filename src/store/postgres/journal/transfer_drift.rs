//! Compares transfers with the grants that they made (invariant I11): what left the sender is what the receiver got.

use uuid::Uuid;

use crate::store::postgres::{Postgres, PostgresError};

/// A transfer whose grants are not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferDrift {
    /// The transfer.
    pub transfer: Uuid,
    /// AP that left the sender's grants, according to the log.
    pub sent: i64,
    /// AP of the grants that it made.
    pub received: i64,
}

impl Postgres {
    /// Returns every transfer that differs from its grants. The log may no longer have old ones.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn transfer_drift(&self) -> Result<Vec<TransferDrift>, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let drift = sqlx::query_as!(
            TransferDrift,
            r#"with whole as (
                 -- Transfers since then are all in the log.
                 select coalesce(log_begins_on::timestamptz + interval '2 days', '-infinity') as since from gate_settings
             ),
             sent as (
                 select uuid as transfer, (select sum(part) from unnest(grant_aps) as parts (part)) as ap
                 from chat_usage_logs
                 where kind = 'transfer'
             ),
             received as (
                 select source_event as transfer, sum(granted) as ap, min(created_at) as at
                 from grants
                 where source_event is not null
                 group by source_event
             )
             select transfer as "transfer!",
                    coalesce(sent.ap, 0)::bigint as "sent!",
                    coalesce(received.ap, 0)::bigint as "received!"
             from sent
             full join received using (transfer)
             where coalesce(sent.ap, 0) <> coalesce(received.ap, 0)
               and (sent.ap is not null or received.at >= coalesce((select since from whole), '-infinity'))
             order by transfer"#
        )
        .fetch_all(&mut snapshot)
        .await?;
        Ok(drift)
    }
}
