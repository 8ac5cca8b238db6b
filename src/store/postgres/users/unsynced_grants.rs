//! Changes of grants that Redis has not received (`chat_quotas.grants_synced`), and what Redis is sent.

use crate::domain::{grant::Grants, meter::MeterCode, user_id::UserId};
use crate::store::postgres::{
    Postgres, PostgresError,
    integers::{meter_of, smallint},
    users::left_of_grants,
};

/// The grants of a user on a meter, and the partition's generation in the same snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantList {
    /// Generation of the partition.
    pub generation: u32,
    /// Grants of which something is left, with those that have expired.
    pub grants: Grants,
    /// The other meters than the chat of which the user has had grants.
    pub meters: Vec<MeterCode>,
}

impl Postgres {
    /// Returns the whole list of a user's grants on a meter; `None` for a user without a row.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn grant_list(
        &self,
        partition: u16,
        user: &UserId,
        meter: MeterCode,
    ) -> Result<Option<GrantList>, PostgresError> {
        // One statement, so one snapshot: a version without one of its grants would hide the grant for ever.
        let row = sqlx::query!(
            r#"select watermark.generation, quotas.grants_version,
                    left_of_meter_grants(quotas.user_uuid, $3) as grants,
                    array(select distinct meter from grants where user_uuid = $1 and meter > 0) as "meters!"
             from chat_quotas as quotas
             cross join flush_watermarks as watermark
             where quotas.user_uuid = $1
               and watermark.partition = $2"#,
            user.as_str(),
            smallint(partition),
            i16::from(meter),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let wrong = |column| PostgresError::inconsistent("chat_quotas", column, user);
            Ok(GrantList {
                generation: u32::try_from(row.generation).map_err(|_| wrong("generation"))?,
                grants: left_of_grants::parse(row.grants_version, row.grants).ok_or_else(|| wrong("grants"))?,
                meters: row.meters.into_iter().filter_map(meter_of).collect(),
            })
        })
        .transpose()
    }

    /// Records that a record in Redis has a version of the user's grants.
    ///
    /// # Errors
    /// If Postgres is unavailable; the list is then sent again, which is harmless.
    pub async fn note_grants_synced(&self, user: &UserId, version: u64) -> Result<(), PostgresError> {
        sqlx::query!(
            "update chat_quotas
             set grants_synced = $2
             where user_uuid = $1
               and grants_synced < $2",
            user.as_str(),
            version.cast_signed(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns users after `after`, in user order, whose changed grants Redis has not received.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn unsynced_grants(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<UserId>, PostgresError> {
        let users = sqlx::query_scalar!(
            "select user_uuid
             from chat_quotas
             where grants_synced < grants_version
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
}
