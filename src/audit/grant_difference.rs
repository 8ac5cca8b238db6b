//! Compares what is left of a user's grants in Redis with Postgres and the journal after the watermark (invariant I11).
//!
//! A record that has heard of a grant has what the row has, less what the journal has charged since. A grant that has
//! expired or was voided may be gone from the record, or still back a hold.

use std::collections::HashMap;

use crate::{
    domain::grant::{Grant, GrantNumber},
    store::{postgres::QuotaRow, redis::Record},
};

/// A grant of which Redis has more or less left than Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantDifference {
    /// The grant.
    pub number: GrantNumber,
    /// AP left by the record, and by Postgres less what is not flushed. Of a record of an older generation, only less
    /// counts.
    pub left: (u64, u64),
}

/// Returns the grants of which another amount is left. `unflushed` is what the journal after the watermark charged to
/// each grant.
pub(super) fn differences(
    row: &QuotaRow,
    record: &Record,
    generation: u32,
    unflushed: &HashMap<GrantNumber, u64>,
) -> Vec<GrantDifference> {
    let in_record: HashMap<GrantNumber, &Grant> =
        record.grants.live.iter().map(|grant| (grant.number, grant)).collect();
    let mut found = Vec::new();
    for grant in &row.grants.live {
        // A list that has not arrived yet, or a grant that Redis has ended since.
        let is_heard = grant.number.get() <= record.grants.version;
        let has_ended = grant.expires_at.is_some_and(|at| is_past(at.timestamp_millis(), record));
        let left = in_record.get(&grant.number).map(|grant| u64::from(grant.left.get()));
        if !is_heard || (has_ended && left.is_none()) {
            continue;
        }
        let charged = unflushed.get(&grant.number).copied().unwrap_or(0);
        let expected = u64::from(grant.left.get()).saturating_sub(charged);
        found.push(GrantDifference { number: grant.number, left: (left.unwrap_or(0), expected) });
    }
    // The record has heard of every change: what it can still use, Postgres has too.
    if record.grants.version == row.grants.version {
        let known = |number| row.grants.live.iter().any(|grant| grant.number == number);
        let live = |grant: &&Grant| grant.expires_at.is_none_or(|at| !is_past(at.timestamp_millis(), record));
        let unknown = record.grants.live.iter().filter(live).filter(|grant| !known(grant.number));
        found.extend(unknown.map(|grant| GrantDifference { number: grant.number, left: (grant.left.get().into(), 0) }));
    }
    // The next access takes the smaller one of an older generation.
    found.retain(|difference| match difference.left {
        (recorded, known) if record.generation != generation => recorded < known,
        (recorded, known) => recorded != known,
    });
    found
}

/// Whether a time is before the record's last change, whose version is its time.
fn is_past(ms: i64, record: &Record) -> bool {
    u64::try_from(ms).unwrap_or(0) <= record.version
}
