//! Users whose ids are UUIDs in another spelling than lower case with hyphens. Ids are compared byte by byte, so each
//! spelling of a UUID is a user of its own (decision 0017).

use crate::store::postgres::{Postgres, PostgresError};

/// Users by the spelling of their UUIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UuidSpellings {
    /// Users whose id has upper-case digits or the prefix `urn:uuid:`.
    pub unusual: u64,
    /// UUIDs that are the id of several users.
    pub doubled: u64,
}

impl Postgres {
    /// Counts users whose ids are UUIDs in an unusual spelling. Reads the whole table.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn uuid_spellings(&self) -> Result<UuidSpellings, PostgresError> {
        let mut snapshot = self.unhurried_snapshot().await?;
        let row = sqlx::query!(
            r#"with spelled as (
                 select user_uuid,
                        user_uuid like '%-%' as is_hyphenated,
                        lower(replace(regexp_replace(user_uuid, '^urn:uuid:', '', 'i'), '-', '')) as digits
                 from chat_quotas
                 where user_uuid ~* '^(urn:uuid:)?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$'
                   and user_uuid !~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$'
             ),
             users as (
                 select digits, count(*) as spellings, count(*) filter (where is_hyphenated) as unusual
                 from spelled
                 group by digits
             )
             select coalesce(sum(unusual), 0)::bigint as "unusual!",
                    count(*) filter (
                        where spellings > 1
                           or exists (
                               select from chat_quotas
                               where user_uuid = overlay(overlay(overlay(overlay(
                                   digits placing '-' from 9 for 0) placing '-' from 14 for 0) placing '-' from 19 for 0)
                                   placing '-' from 24 for 0)
                           )
                    ) as "doubled!"
             from users"#
        )
        .fetch_one(&mut snapshot)
        .await?;
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(UuidSpellings { unusual: count(row.unusual), doubled: count(row.doubled) })
    }
}
