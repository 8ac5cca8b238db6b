//! Packs of a user whose plan has lapsed.

use chrono::{DateTime, Utc};

use crate::domain::{author::Author, new_grant::PACK_SOURCE, user_id::UserId};
use crate::store::postgres::{
    PostgresError,
    connections::Transaction,
    users::grants::{self, Voided},
};

/// Voids what is left of the packs of a user, whose row is locked. Holds that were made before keep what they need.
/// Returns whether there were any.
pub(super) async fn void_left(
    connection: &mut Transaction<'_>,
    user: &UserId,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<bool, PostgresError> {
    let packs = sqlx::query_scalar!(
        "select id
         from grants
         where user_uuid = $1
           and source = $2
           and number is not null
           and voided_at is null
           and granted > charged + transferred
           and (expires_at is null or expires_at > $3)
         order by number",
        user.as_str(),
        PACK_SOURCE,
        now,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut voided = false;
    for pack in packs {
        voided |= matches!(grants::void_locked(connection, user, pack, author, now).await?, Some(Voided::Now(_)));
    }
    Ok(voided)
}
