//! `forgotten_users`: digests of the ids that must not come back. A trigger of `chat_quotas` creates no rows for them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::user_id::UserId;
use crate::store::postgres::{Postgres, PostgresError};

impl Postgres {
    /// Returns whether a user was forgotten, or is being forgotten.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn is_forgotten(&self, user: &UserId) -> Result<bool, PostgresError> {
        Ok(!self.forgotten_of([user]).await?.is_empty())
    }

    /// Returns those of these users who were forgotten, or are being forgotten.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn forgotten_of<'a>(
        &self,
        users: impl IntoIterator<Item = &'a UserId>,
    ) -> Result<HashSet<UserId>, PostgresError> {
        let ids: Vec<&str> = users.into_iter().map(UserId::as_str).collect();
        let found = sqlx::query_scalar!(
            r#"select id as "id!" from unnest($1::text[]) as given (id) where is_forgotten(given.id)"#,
            &ids as &[&str],
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(found.iter().filter_map(|id| UserId::parse(id).ok()).collect())
    }

    /// Keeps the id from coming back, and returns the user's pseudonym. After an interruption, it is the same one.
    ///
    /// # Errors
    /// If Postgres is unavailable, or the role may not write the table.
    pub async fn begin_to_forget(&self, user: &UserId, now: DateTime<Utc>) -> Result<UserId, PostgresError> {
        let pseudonym = format!("forgotten-{}", Uuid::new_v4());
        let pseudonym = sqlx::query_scalar!(
            r#"insert into forgotten_users as known (digest, pseudonym, forgotten_at)
             values (sha256(convert_to($1, 'UTF8')), $2, $3)
             on conflict (digest) do update
             set pseudonym = coalesce(known.pseudonym, excluded.pseudonym)
             returning pseudonym as "pseudonym!""#,
            user.as_str(),
            pseudonym,
            now,
        )
        .fetch_one(&self.pool)
        .await?;
        UserId::parse(&pseudonym).map_err(|_| PostgresError::inconsistent("forgotten_users", "pseudonym", &pseudonym))
    }

    /// Lets an id return, as a new user. Returns false if it was not forgotten.
    ///
    /// # Errors
    /// If Postgres is unavailable, or the role may not write the table.
    pub async fn readmit(&self, user: &UserId) -> Result<bool, PostgresError> {
        let done =
            sqlx::query!("delete from forgotten_users where digest = sha256(convert_to($1, 'UTF8'))", user.as_str())
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected() == 1)
    }
}
