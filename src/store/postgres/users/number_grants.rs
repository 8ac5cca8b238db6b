//! Gives numbers to grants that transfers made. From then on they are sent to Redis and can pay.
//!
//! A short transaction of its own, under the lock of the receiver's row: the flush that makes the grants holds the
//! locks of other users' rows. A grant waits while the user has as many live grants as possible.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{ap::Ap, author::Author, grant::GRANTS_PER_USER_MAX, user_id::UserId};
use crate::store::postgres::{
    NewUser, Postgres, PostgresError,
    connections::Transaction,
    integers::meter_of,
    users::{
        change_level::create,
        grants::{live, next_version, note},
    },
};

/// Most grants that one transaction numbers.
const GRANTS_MAX: i64 = 100;

struct Unnumbered {
    id: Uuid,
    meter: i16,
    granted: i64,
    reason: String,
    created_by: String,
    is_live: bool,
}

impl Postgres {
    /// Returns users after `after`, in user order, who have grants without a number.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn unnumbered_grants(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<UserId>, PostgresError> {
        let users = sqlx::query_scalar!(
            "select distinct user_uuid
             from grants
             where number is null
               and user_uuid > $1
             order by user_uuid
             limit $2",
            after.map_or("", UserId::as_str),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users.iter().filter_map(|user| UserId::parse(user).ok()).collect())
    }

    /// Numbers a user's grants, the oldest first, as far as there is room for live ones. Creates the row of an unknown
    /// user first. Returns how many have got a number.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed.
    pub async fn number_grants(&self, user: &UserId, first: &NewUser) -> Result<u64, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        create(&mut transaction, user, first).await?;
        let row = sqlx::query!("select from chat_quotas where user_uuid = $1 for update", user.as_str());
        if row.fetch_optional(&mut transaction).await?.is_none() {
            give_up_forgotten(&mut transaction, user, first.now).await?;
            transaction.commit().await?;
            return Ok(0);
        }
        // Read after the lock: another gate may have numbered them.
        let waiting = unnumbered(&mut transaction, user, first.now).await?;
        let (mut rooms, mut numbered) = (BTreeMap::new(), 0);
        for grant in waiting {
            let meter =
                meter_of(grant.meter).ok_or_else(|| PostgresError::inconsistent("grants", "meter", grant.id))?;
            let room = match rooms.entry(meter) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let live = live(&mut transaction, (user, meter), first.now).await?;
                    new.insert((GRANTS_PER_USER_MAX as u64).saturating_sub(live))
                }
            };
            if grant.is_live && *room == 0 {
                continue;
            }
            *room -= u64::from(grant.is_live);
            number(&mut transaction, user, grant, first.now).await?;
            numbered += 1;
        }
        transaction.commit().await?;
        Ok(numbered)
    }
}

/// Returns grants without a number. Those that cannot pay any more come first, and take no room.
async fn unnumbered(
    connection: &mut Transaction<'_>,
    user: &UserId,
    now: DateTime<Utc>,
) -> Result<Vec<Unnumbered>, PostgresError> {
    let grants = sqlx::query_as!(
        Unnumbered,
        r#"select id, meter, granted, reason, created_by,
                voided_at is null and (expires_at is null or expires_at > $2) as "is_live!"
         from grants
         where user_uuid = $1
           and number is null
         order by "is_live!", created_at, source_event, source_place
         limit $3"#,
        user.as_str(),
        now,
        GRANTS_MAX,
    );
    Ok(grants.fetch_all(connection).await?)
}

async fn number(
    connection: &mut Transaction<'_>,
    user: &UserId,
    grant: Unnumbered,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    let number = next_version(connection, user, now).await?;
    sqlx::query!("update grants set number = $2 where id = $1", grant.id, number).execute(&mut *connection).await?;
    let author = Author { by: grant.created_by, reason: grant.reason };
    let ap = Ap::new(u32::try_from(grant.granted).unwrap_or(u32::MAX));
    note(connection, ("granted", grant.id), user, ap, &author, now).await
}

/// Voids grants that reached a user who was forgotten meanwhile, under a pseudonym of their own.
async fn give_up_forgotten(
    connection: &mut Transaction<'_>,
    user: &UserId,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "update grants
         set user_uuid = 'forgotten-' || gen_random_uuid(),
             number = $2,
             reason = '(removed)',
             voided_at = $3,
             voided_by = 'grant_sync',
             void_reason = 'the receiver was forgotten'
         where user_uuid = $1
           and number is null
           and is_forgotten_everywhere($1)",
        user.as_str(),
        now.timestamp_millis(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
