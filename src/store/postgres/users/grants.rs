//! `grants`: AP beside the quota of a level; made, voided and listed here. The journal charges them.
//!
//! A grant takes its number under the lock of the user's row, which its transaction keeps until the commit. So a
//! snapshot that has a version of the user's grants has every grant of a lower number.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    ap::Ap, author::Author, grant::GRANTS_PER_USER_MAX, meter::MeterCode, new_grant::NewGrant, user_id::UserId,
};
use crate::store::postgres::{
    NewUser, Postgres, PostgresError,
    connections::Transaction,
    integers::{as_count, integer},
    users::{
        change_level::create,
        grant_row::{GrantRow, RawGrant, parse_user, raw_grants},
    },
};

/// Result of giving a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// It was made.
    Made(GrantRow),
    /// The user has a grant of this external id already.
    Known(GrantRow),
    /// It would have expired already.
    Expired,
    /// The user has as many live grants as possible.
    TooMany,
}

/// Result of voiding a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voided {
    /// It is voided now.
    Now(GrantRow),
    /// It was voided before.
    Before(GrantRow),
}

impl Postgres {
    /// Gives a user a grant, once for each external id. Creates the row of an unknown user first.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed.
    pub async fn give(
        &self,
        id: Uuid,
        grant: &NewGrant,
        author: &Author,
        first: &NewUser,
    ) -> Result<Given, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        create(&mut transaction, &grant.user, first).await?;
        lock(&mut transaction, &grant.user).await?;
        if let Some(known) = known(&mut transaction, grant).await? {
            return Ok(Given::Known(known));
        }
        if grant.is_expired(first.now) {
            return Ok(Given::Expired);
        }
        if live(&mut transaction, (&grant.user, grant.meter), first.now).await? >= GRANTS_PER_USER_MAX as u64 {
            return Ok(Given::TooMany);
        }
        insert(&mut transaction, id, grant, None, author, first.now).await?;
        let made = found(&mut transaction, id).await?;
        transaction.commit().await?;
        made.map(Given::Made).ok_or_else(|| PostgresError::inconsistent("grants", "id", id))
    }

    /// Voids what is left of a grant of this meter. Holds that were made before keep what they need of it. Returns
    /// `None` for an unknown id.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed.
    pub async fn void_grant(
        &self,
        (id, meter): (Uuid, MeterCode),
        author: &Author,
        now: DateTime<Utc>,
    ) -> Result<Option<Voided>, PostgresError> {
        let Some(user) =
            sqlx::query_scalar!("select user_uuid from grants where id = $1 and meter = $2", id, i16::from(meter))
                .fetch_optional(&self.pool)
                .await?
        else {
            return Ok(None);
        };
        let user = parse_user(&user, id)?;
        let mut transaction = self.pool.begin().await?;
        lock(&mut transaction, &user).await?;
        let voided = void_locked(&mut transaction, &user, id, author, now).await?;
        transaction.commit().await?;
        Ok(voided)
    }

    /// Returns a grant; `None` for an unknown id.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn grant(&self, id: Uuid) -> Result<Option<GrantRow>, PostgresError> {
        let row = raw_grants!("id = $1", id).fetch_optional(&self.pool).await?;
        row.map(RawGrant::parse).transpose()
    }

    /// Returns the grants that a transfer made, in the order of its parts; none if it is not in the log.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn grants_of_transfer(&self, transfer: Uuid) -> Result<Vec<GrantRow>, PostgresError> {
        let rows = raw_grants!("source_event = $1 order by source_place", transfer).fetch_all(&self.pool).await?;
        rows.into_iter().map(RawGrant::parse).collect()
    }

    /// Returns the newest grants of a user on a meter, newest first.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn grants_of(&self, user: &UserId, meter: MeterCode, limit: u32) -> Result<Vec<GrantRow>, PostgresError> {
        let rows = raw_grants!(
            "user_uuid = $1
               and meter = $3
             order by created_at desc, id desc
             limit $2",
            user.as_str(),
            i64::from(limit),
            i16::from(meter),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(RawGrant::parse).collect()
    }
}

/// Inserts a grant of a user whose row is locked.
pub(super) async fn insert(
    connection: &mut Transaction<'_>,
    id: Uuid,
    grant: &NewGrant,
    payment: Option<&str>,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    let number = next_version(connection, &grant.user, now).await?;
    sqlx::query!(
        "insert into grants
             (id, user_uuid, number, granted, expires_at, priority, source, reason, external_id, payment, created_at,
              created_by, meter)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        id,
        grant.user.as_str(),
        number,
        i64::from(grant.ap.get()),
        grant.expires_at,
        i16::from(grant.priority.get()),
        grant.source.as_str(),
        author.reason,
        grant.external_id.as_str(),
        payment,
        now,
        author.by,
        i16::from(grant.meter),
    )
    .execute(&mut *connection)
    .await?;
    note(connection, ("granted", id), &grant.user, grant.ap, author, now).await
}

/// Voids a grant of a user whose row is locked.
pub(super) async fn void_locked(
    connection: &mut Transaction<'_>,
    user: &UserId,
    id: Uuid,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<Option<Voided>, PostgresError> {
    let Some(before) = found(connection, id).await? else { return Ok(None) };
    if before.voided_at.is_some() {
        return Ok(Some(Voided::Before(before)));
    }
    next_version(connection, user, now).await?;
    sqlx::query!(
        "update grants set voided_at = $2, voided_by = $3, void_reason = $4 where id = $1",
        id,
        now,
        author.by,
        author.reason,
    )
    .execute(&mut *connection)
    .await?;
    let left = Ap::new(u32::try_from(before.left()).unwrap_or(u32::MAX));
    note(connection, ("grant_voided", id), user, left, author, now).await?;
    let after = GrantRow { voided_at: Some(now), void_reason: Some(author.reason.clone()), ..before };
    Ok(Some(Voided::Now(after)))
}

/// Locks the user's row until the transaction ends.
pub(super) async fn lock(connection: &mut Transaction<'_>, user: &UserId) -> Result<(), PostgresError> {
    sqlx::query!("select from chat_quotas where user_uuid = $1 for update", user.as_str()).execute(connection).await?;
    Ok(())
}

/// Takes the next version of the grants of a user, whose row is locked. A version of the present is higher than any
/// that Redis has heard of, even if Postgres was restored from a backup.
pub(super) async fn next_version(
    connection: &mut Transaction<'_>,
    user: &UserId,
    now: DateTime<Utc>,
) -> Result<i64, PostgresError> {
    let version = sqlx::query_scalar!(
        "update chat_quotas
         set grants_version = greatest(grants_version + 1, $2)
         where user_uuid = $1
         returning grants_version",
        user.as_str(),
        now.timestamp_millis(),
    )
    .fetch_one(connection)
    .await?;
    Ok(version)
}

/// Counts the grants of a user that can pay on a meter.
pub(super) async fn live(
    connection: &mut Transaction<'_>,
    (user, meter): (&UserId, MeterCode),
    now: DateTime<Utc>,
) -> Result<u64, PostgresError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
         from grants
         where user_uuid = $1
           and meter = $3
           and number is not null
           and granted > charged + transferred
           and voided_at is null
           and (expires_at is null or expires_at > $2)"#,
        user.as_str(),
        now,
        i16::from(meter),
    )
    .fetch_one(connection)
    .await?;
    Ok(as_count(count))
}

/// Returns the grant of this external id that the user has already.
pub(super) async fn known(
    connection: &mut Transaction<'_>,
    grant: &NewGrant,
) -> Result<Option<GrantRow>, PostgresError> {
    let row = raw_grants!(
        "user_uuid = $1
           and meter = $3
           and external_id = $2",
        grant.user.as_str(),
        grant.external_id.as_str(),
        i16::from(grant.meter),
    )
    .fetch_optional(connection)
    .await?;
    row.map(RawGrant::parse).transpose()
}

async fn found(connection: &mut Transaction<'_>, id: Uuid) -> Result<Option<GrantRow>, PostgresError> {
    let row = raw_grants!("id = $1", id).fetch_optional(connection).await?;
    row.map(RawGrant::parse).transpose()
}

pub(super) async fn note(
    connection: &mut Transaction<'_>,
    (kind, grant): (&str, Uuid),
    user: &UserId,
    ap: Ap,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<(), PostgresError> {
    sqlx::query!(
        "insert into user_changes (changed_at, changed_by, reason, user_uuid, kind, grant_id, ap)
         values ($1, $2, $3, $4, $5, $6, $7)",
        now,
        author.by,
        author.reason,
        user.as_str(),
        kind,
        grant,
        integer(ap.get()),
    )
    .execute(connection)
    .await?;
    Ok(())
}
