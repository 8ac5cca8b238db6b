//! Orphan records: records of users without a row. A row is created before its record, so Postgres has lost it, with
//! every charge of its user.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    error::AuditError,
    verify::{RecordDifference, Tail, Verifier},
};
use crate::domain::{meter::MeterCode, partition::Partition, user_id::UserId};

impl Verifier {
    /// Finds records of users without a row whose usage is not in the journal after the watermark either.
    pub(super) async fn orphan_records(&self, partition: Partition) -> Result<Vec<RecordDifference>, AuditError> {
        // A scan may return a record twice.
        let mut found: BTreeMap<(UserId, MeterCode), RecordDifference> = BTreeMap::new();
        let mut cursor = 0;
        loop {
            let (next, accounts) = self.redis.scan_accounts(partition, cursor).await?;
            let users: BTreeSet<UserId> = accounts.iter().map(|(user, _)| user.clone()).collect();
            let mut orphan_records = self.without_rows(users.into_iter().collect()).await?;
            if !orphan_records.is_empty() {
                // An older copy of Redis has come back. A repair must not bring the user back.
                let forgotten = self.postgres.forgotten_of(&orphan_records).await?;
                orphan_records.retain(|user| !forgotten.contains(user));
            }
            let orphans: HashSet<&UserId> = orphan_records.iter().collect();
            let meters: BTreeSet<MeterCode> =
                accounts.iter().filter(|(user, _)| orphans.contains(user)).map(|(_, meter)| *meter).collect();
            for meter in meters {
                let users: Vec<&UserId> = orphan_records.iter().collect();
                let (generation, view) = self.read(partition, (meter, &users)).await?;
                let tail = Tail::of(&view.tail, meter);
                let records: Vec<_> = orphan_records.iter().zip(view.records).collect();
                // A flush may have created a row before `look`: then the row has what the journal had.
                let still: HashSet<UserId> = self.without_rows(orphan_records.clone()).await?.into_iter().collect();
                for (user, record) in records.into_iter().filter(|(user, _)| still.contains(*user)) {
                    let Some(record) = record else { continue };
                    if let Some(difference) = tail.unknown(user, &record, generation) {
                        found.insert((user.clone(), meter), difference);
                    }
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(found.into_values().collect());
            }
        }
    }

    async fn without_rows(&self, users: Vec<UserId>) -> Result<Vec<UserId>, AuditError> {
        let rows = self.postgres.rows_of(&users.iter().collect::<Vec<_>>()).await?.rows;
        let known: HashSet<UserId> = rows.into_iter().map(|row| row.user).collect();
        Ok(users.into_iter().filter(|user| !known.contains(user)).collect())
    }
}
