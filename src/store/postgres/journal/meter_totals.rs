//! What was used on other meters than the chat: adds a batch of log rows to `meter_usage`.
//!
//! Runs after the users' rows have been brought to the period of the events and locked, in the same transaction.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::{calendar::Period, meter::MeterCode, usage::UsageEvent, user_id::UserId};
use crate::store::postgres::{PostgresError, connections::Transaction};

#[derive(Debug, Default)]
struct Sum {
    /// What the plan paid.
    used: i64,
    /// What the plan and grants paid.
    total: i64,
    overage: i64,
}

/// Adds events of other meters that are in the log and were not counted before.
pub(super) async fn add(
    connection: &mut Transaction<'_>,
    events: &[&UsageEvent],
    at: DateTime<Utc>,
) -> Result<(), PostgresError> {
    let mut sums: BTreeMap<(&UserId, MeterCode, Period), Sum> = BTreeMap::new();
    for event in events.iter().filter(|event| !event.meter.is_chat()) {
        let sum = sums.entry((&event.user, event.meter, event.period)).or_default();
        sum.used += i64::from(event.plan_ap().get());
        sum.total += i64::from(event.ap.get());
        sum.overage += i64::from(event.overage.get());
    }
    if sums.is_empty() {
        return Ok(());
    }
    let users: Vec<&str> = sums.keys().map(|(user, ..)| user.as_str()).collect();
    let meters: Vec<i16> = sums.keys().map(|(_, meter, _)| (*meter).into()).collect();
    let periods: Vec<i32> = sums.keys().map(|(.., period)| (*period).into()).collect();
    let used: Vec<i64> = sums.values().map(|sum| sum.used).collect();
    let totals: Vec<i64> = sums.values().map(|sum| sum.total).collect();
    let overages: Vec<i64> = sums.values().map(|sum| sum.overage).collect();
    // In the order of the key: no deadlocks.
    sqlx::query!(
        "insert into meter_usage as usage (user_uuid, meter, period, used, total, overage, updated_at)
         select batch.*, $7
         from unnest($1::text[], $2::smallint[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[]) as batch
         on conflict (user_uuid, meter, period) do update
         set used = usage.used + excluded.used,
             total = usage.total + excluded.total,
             overage = usage.overage + excluded.overage,
             updated_at = greatest(usage.updated_at, excluded.updated_at)",
        &users as &[&str],
        &meters,
        &periods,
        &used,
        &totals,
        &overages,
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}
