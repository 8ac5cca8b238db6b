//! `inbox`: what Postgres accepted while Redis was unavailable, until it is applied.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    InvalidInput, ap::Ap, idempotency::IdempotencyKey, model_name::ModelName, token_kinds::TokenKinds, usage::Tokens,
    user_id::UserId, without_redis::Waiting,
};
use crate::store::postgres::{Postgres, PostgresError, integers::integer};

/// An accepted settlement or message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxItem {
    /// Id of the hold or of the message's usage event.
    pub id: Uuid,
    /// User id.
    pub user: UserId,
    /// Action to apply.
    pub kind: InboxKind,
    /// Signed reservation, which contains everything else.
    pub reservation_id: String,
    /// AP to charge; 0 for a release.
    pub ap: Ap,
    /// Tokens that the model counted.
    pub tokens: Tokens,
    /// Model that wrote the answer.
    pub model: Option<ModelName>,
    /// Idempotency key of a message, if it had one.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Time of acceptance.
    pub accepted_at: DateTime<Utc>,
}

/// Action of an inbox item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxKind {
    /// Charge an admitted message. What the quota does not cover is then committed as overage.
    Consume,
    /// Charge a hold.
    Commit,
    /// Release a hold.
    Release,
}

/// Result of accepting an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The item is in the inbox, now or from before.
    Accepted,
    /// The same hold or message was accepted before with another kind of settlement.
    OtherKind(InboxKind),
    /// The same, but with another cost.
    OtherCost,
}

impl InboxKind {
    /// Returns the word used in the table and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Commit => "commit",
            Self::Release => "release",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Consume, Self::Commit, Self::Release].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Postgres {
    /// Accepts an item once.
    ///
    /// # Errors
    /// If the user was forgotten, or Postgres is unavailable: then the item may or may not be accepted, and accepting
    /// it again is harmless.
    pub async fn accept(&self, item: &InboxItem) -> Result<Acceptance, PostgresError> {
        let kinds = item.tokens.kinds();
        let done = sqlx::query!(
            "insert into inbox
                 (id, user_uuid, kind, reservation_id, ap, tokens, model, idempotency_key, accepted_at,
                  input_tokens, cached_input_tokens, output_tokens, tokens_estimated)
             select $1, $2::text, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
             where not is_forgotten($2)
             on conflict (id) do nothing",
            item.id,
            item.user.as_str(),
            item.kind.as_str(),
            item.reservation_id,
            integer(item.ap.get()),
            i32::from(item.tokens),
            ModelName::column(item.model.as_ref()),
            item.idempotency_key.as_ref().map(IdempotencyKey::as_str),
            item.accepted_at,
            kinds.map(|kinds| integer(kinds.input())),
            kinds.map(|kinds| integer(kinds.cached_input())),
            kinds.map(|kinds| integer(kinds.output())),
            kinds.is_some_and(TokenKinds::is_estimated),
        )
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 1 {
            return Ok(Acceptance::Accepted);
        }
        let row = sqlx::query!("select kind, ap from inbox where id = $1", item.id).fetch_optional(&self.pool).await?;
        let row = row.ok_or_else(|| PostgresError::Forgotten(item.user.clone()))?;
        let kind = InboxKind::parse(&row.kind).ok_or_else(|| PostgresError::inconsistent("inbox", "kind", item.id))?;
        Ok(if kind != item.kind {
            Acceptance::OtherKind(kind)
        } else if u32::try_from(row.ap) != Ok(item.ap.get()) {
            Acceptance::OtherCost
        } else {
            Acceptance::Accepted
        })
    }

    /// Claims waiting items until `until`: untried ones first, oldest first, then those with the least recent try.
    /// Skips items that another inbox worker has claimed, unless that claim ends after `until`: its gate's clock was
    /// changed.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn claim_inbox(
        &self,
        claim: Uuid,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<InboxItem>, PostgresError> {
        let rows = sqlx::query!(
            "update inbox
             set claim = $1,
                 claimed_until = $3
             where id in (
                 select id
                 from inbox
                 where settled_at is null
                   and (claimed_until is null or claimed_until <= $2 or claimed_until > $3)
                 order by claimed_until nulls first, accepted_at, id
                 limit $4
                 for update skip locked
             )
             returning id, user_uuid, kind, reservation_id, ap, tokens, model, idempotency_key, accepted_at,
                       input_tokens, cached_input_tokens, output_tokens, tokens_estimated",
            claim,
            now,
            until,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let wrong = |column| PostgresError::inconsistent("inbox", column, row.id);
                let counts = (row.input_tokens, row.cached_input_tokens, row.output_tokens);
                let tokens = tokens(row.tokens, counts, row.tokens_estimated).map_err(|_| wrong("tokens"))?;
                let key = row.idempotency_key.as_deref().map(IdempotencyKey::parse).transpose();
                Ok(InboxItem {
                    id: row.id,
                    user: UserId::parse(&row.user_uuid).map_err(|_| wrong("user_uuid"))?,
                    kind: InboxKind::parse(&row.kind).ok_or_else(|| wrong("kind"))?,
                    reservation_id: row.reservation_id,
                    ap: u32::try_from(row.ap).map(Ap::new).map_err(|_| wrong("ap"))?,
                    tokens,
                    model: ModelName::from_column(&row.model).map_err(|_| wrong("model"))?,
                    idempotency_key: key.map_err(|_| wrong("idempotency_key"))?,
                    accepted_at: row.accepted_at,
                })
            })
            .collect()
    }

    /// Releases the claim's unsettled items for the next worker.
    ///
    /// # Errors
    /// If Postgres is unavailable; the claim then expires.
    pub async fn give_up_claim(&self, claim: Uuid, now: DateTime<Utc>) -> Result<(), PostgresError> {
        sqlx::query!(
            "update inbox
             set claim = null,
                 claimed_until = $2
             where claim = $1
               and settled_at is null",
            claim,
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records the outcome of an item. Returns false if the claim no longer holds the item.
    ///
    /// # Errors
    /// If Postgres is unavailable; the item is then applied again, which is harmless.
    pub async fn settle_inbox(
        &self,
        id: Uuid,
        claim: Uuid,
        outcome: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, PostgresError> {
        let done = sqlx::query!(
            "update inbox
             set outcome = $3,
                 settled_at = $4
             where id = $1
               and claim = $2
               and settled_at is null",
            id,
            claim,
            outcome,
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Turns a message that the quota did not cover into a commit, with the uncovered AP as overage. Returns false if
    /// the claim no longer holds the item.
    ///
    /// # Errors
    /// If Postgres is unavailable; the message is then tried again.
    pub async fn commit_denied(&self, id: Uuid, claim: Uuid) -> Result<bool, PostgresError> {
        let done = sqlx::query!(
            "update inbox
             set kind = 'commit',
                 claim = null,
                 claimed_until = null
             where id = $1
               and claim = $2
               and kind = 'consume'
               and settled_at is null",
            id,
            claim,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Returns the user's messages that wait to be charged.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn waiting_of(&self, user: &UserId) -> Result<Waiting, PostgresError> {
        let row = sqlx::query!(
            r#"select count(*) as "messages!", coalesce(sum(ap), 0) as "ap!"
             from inbox
             where user_uuid = $1
               and settled_at is null
               and kind in ('consume', 'commit')"#,
            user.as_str(),
        )
        .fetch_one(&self.pool)
        .await?;
        let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Waiting { messages: number(row.messages), ap: number(row.ap) })
    }

    /// Returns the number of waiting items, and when the oldest was accepted.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn inbox_waiting(&self) -> Result<(u64, Option<DateTime<Utc>>), PostgresError> {
        let row = sqlx::query!(
            r#"select count(*) as "count!", min(accepted_at) as oldest
             from inbox
             where settled_at is null"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((u64::try_from(row.count).unwrap_or_default(), row.oldest))
    }

    /// Deletes items settled before `before`.
    ///
    /// # Errors
    /// If Postgres is unavailable.
    pub async fn forget_settled(&self, before: DateTime<Utc>) -> Result<u64, PostgresError> {
        let done = sqlx::query!("delete from inbox where settled_at < $1", before).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

/// Reads the columns of tokens: the total, and the kinds if they are known.
fn tokens(
    total: i32,
    counts: (Option<i32>, Option<i32>, Option<i32>),
    estimated: bool,
) -> Result<Tokens, InvalidInput> {
    let (Some(input), Some(cached_input), Some(output)) = counts else { return Tokens::new(total.into()) };
    let count = |tokens: i32| Tokens::new(tokens.into()).map(Tokens::get);
    let kinds = TokenKinds::new(count(input)?, count(cached_input)?, count(output)?)?;
    Ok(Tokens::of_kinds(if estimated { kinds.estimated() } else { kinds }))
}
