//! `payments`: packs that were bought, each once, and voided once their payment is taken back.
//!
//! An event is recorded and applied in one transaction, which locks the payment first and then the user's row. So a
//! purchase and its refund that arrive together, or in the wrong order, lead to the same state.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    author::Author,
    grant::GRANTS_PER_USER_MAX,
    purchase::{Purchase, Refund, is_taken_back},
    user_id::UserId,
};
use crate::store::postgres::{
    NewUser, Postgres, PostgresError,
    connections::Transaction,
    users::{
        change_level::create,
        grant_row::parse_user,
        grants::{self, Voided},
    },
};

/// Distinguishes locks of payments from the gate's other advisory locks.
const LOCK_CLASS: i32 = 0x7170; // "qp"

/// What a purchase did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bought {
    /// It was applied, now or before. True if it made or voided a grant.
    Applied(bool),
    /// The user has as many live grants as possible; nothing is changed.
    TooMany,
}

/// What an event has reported about a payment.
struct Reported<'a> {
    payment: &'a str,
    amount: Option<i64>,
    refunded: i64,
    disputed: bool,
}

impl Postgres {
    /// Makes the grants of a purchase that do not exist yet, all or none. Voids them immediately if the payment has
    /// been taken back before.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed, and the event may be applied again.
    pub async fn buy(&self, purchase: &Purchase, author: &Author, first: &NewUser) -> Result<Bought, PostgresError> {
        let Some(user) = purchase.grants.first().map(|grant| &grant.user) else { return Ok(Bought::Applied(false)) };
        let mut transaction = self.pool.begin().await?;
        let payment = purchase.payment.as_deref();
        if let Some(payment) = payment {
            lock(&mut transaction, payment).await?;
        }
        create(&mut transaction, user, first).await?;
        grants::lock(&mut transaction, user).await?;
        let mut changed = false;
        for grant in &purchase.grants {
            if grants::known(&mut transaction, grant).await?.is_some() {
                continue;
            }
            if grants::live(&mut transaction, (user, grant.meter), first.now).await? >= GRANTS_PER_USER_MAX as u64 {
                return Ok(Bought::TooMany);
            }
            grants::insert(&mut transaction, Uuid::new_v4(), grant, payment, author, first.now).await?;
            changed = true;
        }
        if let Some(payment) = payment {
            let reported = Reported { payment, amount: purchase.amount, refunded: 0, disputed: false };
            let voided = report(&mut transaction, &reported, author, first.now).await?;
            changed |= !voided.is_empty();
        }
        transaction.commit().await?;
        Ok(Bought::Applied(changed))
    }

    /// Records that a payment was taken back, and voids what is left of its grants if all of it was. Returns the users
    /// of grants that were voided now.
    ///
    /// # Errors
    /// If Postgres is unavailable; nothing is changed, and the event may be applied again.
    pub async fn take_back(
        &self,
        refund: &Refund,
        author: &Author,
        now: DateTime<Utc>,
    ) -> Result<Vec<UserId>, PostgresError> {
        let mut transaction = self.pool.begin().await?;
        lock(&mut transaction, &refund.payment).await?;
        let Refund { payment, amount, refunded, disputed, .. } = refund;
        let reported = Reported { payment, amount: *amount, refunded: *refunded, disputed: *disputed };
        let voided = report(&mut transaction, &reported, author, now).await?;
        transaction.commit().await?;
        Ok(voided)
    }
}

async fn lock(connection: &mut Transaction<'_>, payment: &str) -> Result<(), PostgresError> {
    sqlx::query!("select pg_advisory_xact_lock($1, hashtext($2))", LOCK_CLASS, payment).execute(connection).await?;
    Ok(())
}

/// Records a report about a locked payment. Voids its grants if the payment is taken back by all that was reported.
async fn report(
    connection: &mut Transaction<'_>,
    reported: &Reported<'_>,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<Vec<UserId>, PostgresError> {
    let state = sqlx::query!(
        "insert into payments as known (payment, amount, refunded, disputed, updated_at)
         values ($1, $2, $3, $4, $5)
         on conflict (payment) do update
         set amount = greatest(known.amount, excluded.amount),
             refunded = greatest(known.refunded, excluded.refunded),
             disputed = known.disputed or excluded.disputed,
             updated_at = greatest(known.updated_at, excluded.updated_at)
         returning amount, refunded, disputed",
        reported.payment,
        reported.amount,
        reported.refunded,
        reported.disputed,
        now,
    )
    .fetch_one(&mut *connection)
    .await?;
    if !is_taken_back(state.amount, state.refunded, state.disputed) {
        return Ok(Vec::new());
    }
    let bought = sqlx::query!(
        "select id, user_uuid
         from grants
         where payment = $1
           and voided_at is null
         order by user_uuid, number",
        reported.payment,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut users = Vec::new();
    for row in bought {
        let user = parse_user(&row.user_uuid, row.id)?;
        grants::lock(connection, &user).await?;
        if let Some(Voided::Now(_)) = grants::void_locked(connection, &user, row.id, author, now).await?
            && !users.contains(&user)
        {
            users.push(user);
        }
    }
    Ok(users)
}
