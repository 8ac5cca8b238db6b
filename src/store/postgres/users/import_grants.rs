//! Grants of imported users: each is made once for its external id. A grant that is known is left as it is, because
//! less is left of it when the file is exported again.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::domain::{grant::GRANTS_PER_USER_MAX, new_grant::NewGrant, user_id::UserId};
use crate::store::postgres::{
    PostgresError,
    connections::Transaction,
    integers::integer,
    users::{grant_row::parse_user, import::ImportRow},
};

/// Who makes the grants.
const IMPORT: &str = "import";

/// A grant to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedGrant {
    /// The grant. Its user is that of the row.
    pub grant: NewGrant,
    /// Reason as text; empty for none.
    pub reason: String,
}

/// Returns the users who would have more live grants than possible. Their rows are locked.
pub(super) async fn users_with_too_many(
    connection: &mut Transaction<'_>,
    rows: &[&ImportRow],
    now: DateTime<Utc>,
) -> Result<HashSet<UserId>, PostgresError> {
    let grants: Vec<&NewGrant> = live(rows, now).map(|imported| &imported.grant).collect();
    if grants.is_empty() {
        return Ok(HashSet::new());
    }
    let users: Vec<&str> = grants.iter().map(|grant| grant.user.as_str()).collect();
    let external_ids: Vec<&str> = grants.iter().map(|grant| grant.external_id.as_str()).collect();
    let found = sqlx::query_scalar!(
        r#"with given as (
                 select user_uuid collate "C" as user_uuid, external_id collate "C" as external_id
                 from unnest($1::text[], $2::text[]) as given (user_uuid, external_id)
             ),
             fresh as (
                 select given.user_uuid, count(*) as grants
                 from given
                 where not exists (
                     select from grants
                     where grants.user_uuid = given.user_uuid
                       and grants.meter = 0
                       and grants.external_id = given.external_id
                 )
                 group by given.user_uuid
             )
             select fresh.user_uuid as "user_uuid!"
             from fresh
             where fresh.grants + (
                     select count(*)
                     from grants
                     where grants.user_uuid = fresh.user_uuid
                       and grants.meter = 0
                       and grants.number is not null
                       and grants.granted > grants.charged + grants.transferred
                       and grants.voided_at is null
                       and (grants.expires_at is null or grants.expires_at > $3)
                 ) > $4"#,
        &users as &[&str],
        &external_ids as &[&str],
        now,
        i64::try_from(GRANTS_PER_USER_MAX).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await?;
    let of_row = |user: &String| rows.iter().find(|row| row.user.as_str() == user).map(|row| row.user.clone());
    Ok(found.iter().filter_map(of_row).collect())
}

/// Makes the grants that are not known, of users whose rows are locked. Returns the user of each grant that it made.
/// Redis has not received them: the grant sync sends them.
pub(super) async fn give(
    connection: &mut Transaction<'_>,
    rows: &[&ImportRow],
    now: DateTime<Utc>,
) -> Result<Vec<UserId>, PostgresError> {
    let all: Vec<&ImportedGrant> = live(rows, now).collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let users: Vec<&str> = all.iter().map(|imported| imported.grant.user.as_str()).collect();
    let aps: Vec<i32> = all.iter().map(|imported| integer(imported.grant.ap.get())).collect();
    let expiries: Vec<Option<DateTime<Utc>>> = all.iter().map(|imported| imported.grant.expires_at).collect();
    let priorities: Vec<i16> = all.iter().map(|imported| imported.grant.priority.get().into()).collect();
    let sources: Vec<&str> = all.iter().map(|imported| imported.grant.source.as_str()).collect();
    let reasons: Vec<&str> = all.iter().map(|imported| imported.reason.as_str()).collect();
    let external_ids: Vec<&str> = all.iter().map(|imported| imported.grant.external_id.as_str()).collect();
    let made = sqlx::query!(
        r#"with given as (
                 select user_uuid collate "C" as user_uuid, ap, expires_at, priority, source, reason,
                        external_id collate "C" as external_id, place
                 from unnest($1::text[], $2::int[], $3::timestamptz[], $4::smallint[], $5::text[], $6::text[], $7::text[])
                     with ordinality as given (user_uuid, ap, expires_at, priority, source, reason, external_id, place)
             ),
             fresh as (
                 select gen_random_uuid() as id, given.*,
                        greatest(quotas.grants_version + 1, $8) - 1
                            + row_number() over (partition by given.user_uuid order by given.place) as number
                 from given
                 join chat_quotas as quotas on quotas.user_uuid = given.user_uuid
                 where not exists (
                     select from grants
                     where grants.user_uuid = given.user_uuid
                       and grants.meter = 0
                       and grants.external_id = given.external_id
                 )
             ),
             versions as (
                 update chat_quotas as quotas
                 set grants_version = newest.number
                 from (select user_uuid, max(number) as number from fresh group by user_uuid) as newest
                 where quotas.user_uuid = newest.user_uuid
             ),
             noted as (
                 insert into user_changes (changed_at, changed_by, reason, user_uuid, kind, grant_id, ap)
                 select $9, $10, reason, user_uuid, 'granted', id, ap
                 from fresh
             )
             insert into grants
                 (id, user_uuid, number, granted, expires_at, priority, source, reason, external_id, created_at, created_by)
             select id, user_uuid, number, ap, expires_at, priority, source, reason, external_id, $9, $10
             from fresh
             returning id, user_uuid"#,
        &users as &[&str],
        &aps,
        &expiries as &[Option<DateTime<Utc>>],
        &priorities,
        &sources as &[&str],
        &reasons as &[&str],
        &external_ids as &[&str],
        now.timestamp_millis(),
        now,
        IMPORT,
    )
    .fetch_all(connection)
    .await?;
    made.iter().map(|grant| parse_user(&grant.user_uuid, grant.id)).collect()
}

/// Grants that have not expired: the others give nothing.
fn live<'a>(rows: &[&'a ImportRow], now: DateTime<Utc>) -> impl Iterator<Item = &'a ImportedGrant> {
    rows.iter().flat_map(|row| &row.grants).filter(move |imported| !imported.grant.is_expired(now))
}
