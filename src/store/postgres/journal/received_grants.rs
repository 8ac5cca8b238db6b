//! What transfers make: a grant of the receiver for each part, in the transaction that writes the charge to the log.
//!
//! The grants have no number yet. A number needs the lock of the receiver's row, whose partition may be another one:
//! two flushes that transfer in opposite directions would wait for each other. The grant sync numbers them
//! (`users/number_grants.rs`).

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{new_grant::TRANSFER_SOURCE, usage::UsageEvent};
use crate::store::postgres::{PostgresError, connections::Transaction, integers::smallint};

#[derive(Debug, Default)]
struct Batch<'a> {
    ids: Vec<Uuid>,
    events: Vec<Uuid>,
    places: Vec<i16>,
    receivers: Vec<&'a str>,
    senders: Vec<&'a str>,
    aps: Vec<i64>,
    expiries: Vec<Option<DateTime<Utc>>>,
    priorities: Vec<i16>,
    times: Vec<DateTime<Utc>>,
    authors: Vec<&'a str>,
    reasons: Vec<&'a str>,
    meters: Vec<i16>,
}

/// Makes the grants of the transfers among events that are in the log and were not counted before.
pub(in crate::store::postgres) async fn add(
    connection: &mut Transaction<'_>,
    events: &[&UsageEvent],
) -> Result<(), PostgresError> {
    let batch = Batch::of(events);
    if batch.ids.is_empty() {
        return Ok(());
    }
    // Event and place make each grant once, whatever writes the event.
    sqlx::query!(
        "insert into grants
             (id, source_event, source_place, user_uuid, meter, received_from, granted, expires_at, priority, source, reason,
              created_at, created_by)
         select id, event, place, receiver, meter, sender, ap, expires_at, priority, $12, reason, at, author
         from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[],
                     $8::smallint[], $9::timestamptz[], $10::text[], $11::text[], $13::smallint[])
             as batch (id, event, place, receiver, sender, ap, expires_at, priority, at, author, reason, meter)
         on conflict (source_event, source_place) do nothing",
        &batch.ids,
        &batch.events,
        &batch.places,
        &batch.receivers as &[&str],
        &batch.senders as &[&str],
        &batch.aps,
        &batch.expiries as &[Option<DateTime<Utc>>],
        &batch.priorities,
        &batch.times,
        &batch.authors as &[&str],
        &batch.reasons as &[&str],
        TRANSFER_SOURCE,
        &batch.meters,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl<'a> Batch<'a> {
    fn of(events: &[&'a UsageEvent]) -> Self {
        let mut batch = Self::default();
        for event in events {
            let Some(receipt) = &event.receipt else { continue };
            for (place, (part, terms)) in (0..).zip(event.grants.iter().zip(&receipt.terms)) {
                batch.ids.push(Uuid::new_v4());
                batch.events.push(event.id);
                batch.places.push(smallint(place));
                batch.receivers.push(receipt.receiver.as_str());
                batch.senders.push(event.user.as_str());
                batch.aps.push(part.ap.get().into());
                batch.expiries.push(terms.expires_at);
                batch.priorities.push(terms.priority.into());
                batch.times.push(event.at);
                batch.authors.push(&receipt.author.by);
                batch.reasons.push(&receipt.author.reason);
                batch.meters.push(event.meter.get().into());
            }
        }
        batch
    }
}
