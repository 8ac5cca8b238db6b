//! Finds earlier charges of requests with an Idempotency-Key, for many requests in one statement.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{chat_usage_logs::LoggedRow, flush_watermarks::answers_since};
use crate::domain::{partition::Partition, user_id::UserId};
use crate::store::postgres::{
    LoggedUsage, Postgres, PostgresError,
    integers::{integer, smallint},
};

/// A request whose charge may be in the log.
#[derive(Debug, Clone)]
pub struct SoughtCharge {
    /// Partition of the user.
    pub partition: Partition,
    /// The user.
    pub user: UserId,
    /// Ids that its charge can have.
    pub events: Vec<Uuid>,
}

/// What Postgres knows about such a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierCharge {
    /// The partition's generation, from the same snapshot.
    pub generation: u32,
    /// Since when Redis has every answer of the partition.
    pub answers_since: DateTime<Utc>,
    /// The charge, if it is in the log.
    pub logged: Option<LoggedUsage>,
}

impl Postgres {
    /// Finds charges logged between two times. The result has one item for each request, in order.
    ///
    /// # Errors
    /// If Postgres is unavailable, or a partition does not exist.
    pub async fn find_charges(
        &self,
        sought: &[SoughtCharge],
        (from, to): (DateTime<Utc>, DateTime<Utc>),
    ) -> Result<Vec<EarlierCharge>, PostgresError> {
        let each = || {
            sought
                .iter()
                .enumerate()
                .flat_map(|(number, request)| request.events.iter().map(move |event| (number, request, *event)))
        };
        let numbers: Vec<i32> = each().filter_map(|(number, ..)| i32::try_from(number).ok()).collect();
        let partitions: Vec<i16> = each().map(|(_, request, _)| smallint(request.partition.number())).collect();
        let users: Vec<&str> = each().map(|(_, request, _)| request.user.as_str()).collect();
        let events: Vec<Uuid> = each().map(|(.., event)| event).collect();
        let rows = sqlx::query!(
            r#"select sought.number as "number!", watermark.generation, watermark.opened_at, watermark.answers_since,
                 watermark.answers_generation, logged.uuid as "uuid?", logged.ap_used as "ap_used?",
                 logged.overage as "overage?", logged.period as "period?", logged.kind as "kind?",
                 logged.session_id as "session_id?", logged.tokens_used as "tokens_used?", logged.model as "model?",
                 logged.meter as "meter?"
             from unnest($1::integer[], $2::smallint[], $3::text[], $4::uuid[])
                 as sought (number, partition, user_uuid, event)
             join flush_watermarks as watermark
                 on watermark.partition = sought.partition
             left join lateral (
                 select *
                 from chat_usage_logs
                 where uuid = sought.event
                   and user_uuid = sought.user_uuid
                   and created_at between $5 and $6
                 limit 1
             ) as logged on true"#,
            &numbers,
            &partitions,
            &users as &[&str],
            &events,
            from,
            to,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found: Vec<Option<EarlierCharge>> = vec![None; sought.len()];
        for row in rows {
            let Some(of) = usize::try_from(row.number).ok().and_then(|number| found.get_mut(number)) else { continue };
            let charge = of.get_or_insert(EarlierCharge {
                generation: u32::try_from(row.generation).unwrap_or_default(),
                answers_since: answers_since(
                    row.generation,
                    (row.answers_since, row.answers_generation),
                    row.opened_at,
                ),
                logged: None,
            });
            if let (Some(uuid), Some(ap_used), Some(overage), Some(period)) =
                (row.uuid, row.ap_used, row.overage, row.period)
            {
                let logged = LoggedRow {
                    uuid,
                    ap_used,
                    overage,
                    period,
                    kind: row.kind.unwrap_or_default(),
                    session_id: row.session_id.unwrap_or_default(),
                    tokens_used: row.tokens_used.unwrap_or_default(),
                    model: row.model.unwrap_or_default(),
                    meter: row.meter.unwrap_or_default(),
                };
                charge.logged = Some(logged.read()?);
            }
        }
        let missing = |request: &SoughtCharge| {
            PostgresError::inconsistent("flush_watermarks", "partition", integer(request.partition.number().into()))
        };
        found.into_iter().zip(sought).map(|(charge, request)| charge.ok_or_else(|| missing(request))).collect()
    }
}
