//! What grants paid for, and what was transferred of them: adds the parts of a batch of log rows to `grants`.
//!
//! Runs after the users' rows have been updated, so its transaction holds the locks of those rows, under which grants
//! are made and voided too.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{meter::MeterCode, new_grant::UNKNOWN_SOURCE, usage::UsageEvent, user_id::UserId};
use crate::store::postgres::{PostgresError, connections::Transaction};

/// What a batch takes from one grant.
#[derive(Debug, Default)]
struct Sum {
    charged: i64,
    transferred: i64,
}

/// What a batch takes from each grant, by user, meter and number.
type Sums<'a> = BTreeMap<(&'a UserId, MeterCode, i64), Sum>;

#[derive(Debug, Default)]
struct Batch<'a> {
    users: Vec<&'a str>,
    meters: Vec<i16>,
    numbers: Vec<i64>,
    charged: Vec<i64>,
    transferred: Vec<i64>,
}

/// Adds the parts of events that are in the log and were not counted before.
pub(in crate::store::postgres) async fn add(
    connection: &mut Transaction<'_>,
    events: &[&UsageEvent],
    at: DateTime<Utc>,
) -> Result<(), PostgresError> {
    let mut sums = Sums::new();
    for event in events {
        for part in &event.grants {
            let sum = sums.entry((&event.user, event.meter, part.number.get().cast_signed())).or_default();
            *(if event.receipt.is_some() { &mut sum.transferred } else { &mut sum.charged }) +=
                i64::from(part.ap.get());
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    let known = charge(connection, &sums).await?;
    // Numbers of a user are of all meters together.
    sums.retain(|(user, _, number), _| !known.contains(&(user.to_string(), *number)));
    if sums.is_empty() {
        return Ok(());
    }
    insert_unknown(connection, &sums, at).await
}

/// Adds to known grants. Returns the user and number of each.
async fn charge(connection: &mut Transaction<'_>, sums: &Sums<'_>) -> Result<HashSet<(String, i64)>, PostgresError> {
    let batch = Batch::of(sums);
    let rows = sqlx::query!(
        r#"update grants
         set charged = grants.charged + batch.charged,
             transferred = grants.transferred + batch.transferred,
             granted = grants.granted + case when grants.source = $5 then batch.charged + batch.transferred else 0 end
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $6::smallint[])
             as batch (user_uuid, number, charged, transferred, meter)
         where grants.user_uuid = batch.user_uuid
           and grants.meter = batch.meter
           and grants.number = batch.number
         returning grants.user_uuid, grants.number as "number!""#,
        &batch.users as &[&str],
        &batch.numbers,
        &batch.charged,
        &batch.transferred,
        UNKNOWN_SOURCE,
        &batch.meters,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_uuid, row.number)).collect())
}

/// Inserts grants that Postgres does not know: it was restored from a time before they were made. They granted what
/// they paid, so nothing is left of them.
async fn insert_unknown(
    connection: &mut Transaction<'_>,
    sums: &Sums<'_>,
    at: DateTime<Utc>,
) -> Result<(), PostgresError> {
    let batch = Batch::of(sums);
    let ids: Vec<Uuid> = sums.keys().map(|_| Uuid::new_v4()).collect();
    sqlx::query!(
        "insert into grants
             (id, user_uuid, meter, number, granted, charged, transferred, priority, source, reason, created_at, created_by)
         select id, user_uuid, meter, number, charged + transferred, charged, transferred, 0, $6,
                'Postgres had lost this grant; it granted what it paid', $7, 'flusher'
         from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $8::smallint[])
             as batch (id, user_uuid, number, charged, transferred, meter)",
        &ids,
        &batch.users as &[&str],
        &batch.numbers,
        &batch.charged,
        &batch.transferred,
        UNKNOWN_SOURCE,
        at,
        &batch.meters,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl<'a> Batch<'a> {
    fn of(sums: &Sums<'a>) -> Self {
        let mut batch = Self::default();
        for ((user, meter, number), sum) in sums {
            batch.users.push(user.as_str());
            batch.meters.push((*meter).into());
            batch.numbers.push(*number);
            batch.charged.push(sum.charged);
            batch.transferred.push(sum.transferred);
        }
        batch
    }
}
