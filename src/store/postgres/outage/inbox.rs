//! `inbox`: what Postgres accepted while Redis was away, until it is applied.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{ap::Ap, idempotency::IdempotencyKey, model_name::ModelName, usage::Tokens, user_id::UserId};
use crate::store::postgres::{Postgres, PostgresError};

/// Something that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxItem {
    /// The hold, or the message's usage event.
    pub id: Uuid,
    /// Whose.
    pub user: UserId,
    /// What is to be done.
    pub kind: InboxKind,
    /// The signed reservation, which has all else.
    pub reservation_id: String,
    /// What to charge; 0 for a release.
    pub ap: Ap,
    /// Tokens that the model counted.
    pub tokens: Tokens,
    /// The model that wrote the answer.
    pub model: Option<ModelName>,
    /// The key of a message that had one.
    pub idempotency_key: Option<IdempotencyKey>,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxKind {
    /// Charge a message that was let through; what the quota does not cover is then committed as overage.
    Consume,
    /// Charge a hold.
    Commit,
    /// Give a hold back.
    Release,
}

/// What became of an item that was to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It is in the inbox, now or since an earlier time.
    Accepted,
    /// The same hold or message was accepted before, with another kind of settlement.
    OtherKind(InboxKind),
    /// The same, with another cost.
    OtherCost,
}

impl InboxKind {
    /// The word in the table and in metrics.
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
    /// Accepts an item, once.
    ///
    /// # Errors
    /// If Postgres is away; then it is not accepted, or may be: accepting it again is harmless.
    pub async fn accept(&self, item: &InboxItem) -> Result<Acceptance, PostgresError> {
        let done = sqlx::query!(
            "insert into inbox (id, user_uuid, kind, reservation_id, ap, tokens, model, idempotency_key, accepted_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (id) do nothing",
            item.id,
            item.user.as_str(),
            item.kind.as_str(),
            item.reservation_id,
            i32::try_from(item.ap.get()).unwrap_or(i32::MAX),
            i32::try_from(item.tokens.get()).unwrap_or(i32::MAX),
            ModelName::column(item.model.as_ref()),
            item.idempotency_key.as_ref().map(IdempotencyKey::as_str),
            item.accepted_at,
        )
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 1 {
            return Ok(Acceptance::Accepted);
        }
        let row = sqlx::query!("select kind, ap from inbox where id = $1", item.id).fetch_one(&self.pool).await?;
        let kind = InboxKind::parse(&row.kind).ok_or_else(|| PostgresError::inconsistent("inbox", "kind", item.id))?;
        Ok(if kind != item.kind {
            Acceptance::OtherKind(kind)
        } else if u32::try_from(row.ap) != Ok(item.ap.get()) {
            Acceptance::OtherCost
        } else {
            Acceptance::Accepted
        })
    }

    /// Takes items that wait and that no other inbox_worker is at: those that were not tried yet, the oldest first, then those whose last try
    /// is longest ago. They are this claim's until `until`; a claim that ends later than that is of a gate whose clock was turned, and is none.
    ///
    /// # Errors
    /// If Postgres is away.
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
             returning id, user_uuid, kind, reservation_id, ap, tokens, model, idempotency_key, accepted_at",
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
                let key = row.idempotency_key.as_deref().map(IdempotencyKey::parse).transpose();
                Ok(InboxItem {
                    id: row.id,
                    user: UserId::parse(&row.user_uuid).map_err(|_| wrong("user_uuid"))?,
                    kind: InboxKind::parse(&row.kind).ok_or_else(|| wrong("kind"))?,
                    reservation_id: row.reservation_id,
                    ap: u32::try_from(row.ap).map(Ap::new).map_err(|_| wrong("ap"))?,
                    tokens: Tokens::new(row.tokens.into()).map_err(|_| wrong("tokens"))?,
                    model: ModelName::from_column(&row.model).map_err(|_| wrong("model"))?,
                    idempotency_key: key.map_err(|_| wrong("idempotency_key"))?,
                    accepted_at: row.accepted_at,
                })
            })
            .collect()
    }

    /// Leaves what this claim has not settled to whoever comes next.
    ///
    /// # Errors
    /// If Postgres is away; then the claim ends by itself.
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

    /// Notes what came of an item. False when the claim is not this inbox_worker's any more.
    ///
    /// # Errors
    /// If Postgres is away; then the item is applied again, which is harmless.
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

    /// A message whose quota did not cover it is to be committed from now on, with what it lacks as overage. False when
    /// the claim is not this inbox_worker's any more.
    ///
    /// # Errors
    /// If Postgres is away; then the message is tried again.
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

    /// AP that waits to be charged to a user.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn ap_in_inbox(&self, user: &UserId) -> Result<u64, PostgresError> {
        let ap = sqlx::query_scalar!(
            r#"select coalesce(sum(ap), 0) as "ap!"
             from inbox
             where user_uuid = $1
               and settled_at is null"#,
            user.as_str(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(ap).unwrap_or_default())
    }

    /// How many items wait, and when the first of them was accepted.
    ///
    /// # Errors
    /// If Postgres is away.
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

    /// Forgets items that were settled before `before`.
    ///
    /// # Errors
    /// If Postgres is away.
    pub async fn forget_settled(&self, before: DateTime<Utc>) -> Result<u64, PostgresError> {
        let done = sqlx::query!("delete from inbox where settled_at < $1", before).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}
