//! The comparer: sets what the old credits system says beside what Postgres says, user by user.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use crate::outbox::old_credits::OldCredits;
use quota_gate::{
    domain::{calendar::Period, user_id::UserId},
    store::postgres::{Postgres, UsedByUser},
};

/// Users of one read.
const USERS_PER_READ: u32 = 1000;
/// Users who are asked for at a time.
const ASKED_AT_ONCE: usize = 16;

/// Where the old system's numbers come from.
#[derive(Debug)]
pub enum Old {
    /// It is asked.
    Asked(Box<OldCredits>),
    /// An export; who is not in it has used nothing.
    Listed(HashMap<UserId, i64>),
}

/// Compares.
#[derive(Debug)]
pub struct Comparer {
    /// The gate's side.
    pub postgres: Postgres,
    /// The other.
    pub old: Old,
}

/// What was compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// How many users.
    pub users: u64,
    /// AP on their way to the old system, which explain that it has less.
    pub waiting: i64,
    /// Users of whom the two say different things.
    pub differences: Vec<BalanceDifference>,
}

/// A user of whom the two say different things.
#[derive(Debug, PartialEq, Eq)]
pub struct BalanceDifference {
    /// Who.
    pub user: String,
    /// What the gate says that the old system should say by now.
    pub gate: i64,
    /// What it says, or why it says nothing.
    pub old: Result<i64, String>,
}

impl Comparer {
    /// Compares every user of a period.
    ///
    /// # Errors
    /// If Postgres is away, or has a user id that is none.
    pub async fn compare(&self, period: Period) -> anyhow::Result<Comparison> {
        let mut comparison = Comparison::default();
        let mut after: Option<UserId> = None;
        loop {
            let page = self.postgres.used_by_users(period, after.as_ref(), USERS_PER_READ).await?;
            let Some(last) = page.last() else { return Ok(comparison) };
            after = Some(UserId::parse(&last.user)?);
            comparison.users += page.len() as u64;
            comparison.waiting += page.iter().map(|row| row.waiting).sum::<i64>();
            let differences: Vec<Option<BalanceDifference>> =
                stream::iter(page).map(|row| self.difference(row, period)).buffered(ASKED_AT_ONCE).collect().await;
            comparison.differences.extend(differences.into_iter().flatten());
        }
    }

    async fn difference(&self, row: UsedByUser, period: Period) -> Option<BalanceDifference> {
        let user = UserId::parse(&row.user).ok()?;
        let old = match &self.old {
            Old::Asked(old) => old.used(&user, period).await,
            Old::Listed(listed) => Ok(listed.get(&user).copied().unwrap_or(0)),
        };
        let gate = row.used - row.waiting;
        (old != Ok(gate)).then_some(BalanceDifference { user: row.user, gate, old })
    }
}
