//! Compares each user's usage in the old credits system with Postgres.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use crate::outbox::old_credits::OldCredits;
use quota_gate::{
    domain::{calendar::Period, user_id::UserId},
    store::postgres::{Postgres, UsedByUser},
};

/// Users per read.
const USERS_PER_READ: u32 = 1000;
/// Maximum number of concurrent requests to the old system.
const REQUESTS_IN_FLIGHT_MAX: usize = 16;

/// Source of the old system's numbers.
#[derive(Debug)]
pub enum OldUsage {
    /// Requests to the old system.
    System(Box<OldCredits>),
    /// An export. A user who is not in it has used nothing.
    Export(HashMap<UserId, i64>),
}

/// Compares the old system's numbers with the gate's.
#[derive(Debug)]
pub struct Comparer {
    /// The gate's numbers.
    pub postgres: Postgres,
    /// The old system's numbers.
    pub old: OldUsage,
}

/// Result of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Number of users compared.
    pub users: u64,
    /// AP not yet delivered to the old system, which explains its lower numbers.
    pub waiting: i64,
    /// Users whose numbers differ.
    pub differences: Vec<BalanceDifference>,
}

/// A user whose numbers differ.
#[derive(Debug, PartialEq, Eq)]
pub struct BalanceDifference {
    /// User id.
    pub user: String,
    /// AP that the old system should report by now, according to the gate.
    pub gate: i64,
    /// AP that the old system reports, or why it reports none.
    pub old: Result<i64, String>,
}

impl Comparer {
    /// Compares all users in one period.
    ///
    /// # Errors
    /// If Postgres is unavailable or contains an invalid user id.
    pub async fn compare(&self, period: Period) -> anyhow::Result<Comparison> {
        let mut comparison = Comparison::default();
        let mut after: Option<UserId> = None;
        loop {
            let page = self.postgres.used_by_users(period, after.as_ref(), USERS_PER_READ).await?;
            let Some(last) = page.last() else { return Ok(comparison) };
            after = Some(UserId::parse(&last.user)?);
            comparison.users += page.len() as u64;
            comparison.waiting += page.iter().map(|row| row.waiting).sum::<i64>();
            let differences: Vec<Option<BalanceDifference>> = stream::iter(page)
                .map(|row| self.difference(row, period))
                .buffered(REQUESTS_IN_FLIGHT_MAX)
                .collect()
                .await;
            comparison.differences.extend(differences.into_iter().flatten());
        }
    }

    async fn difference(&self, row: UsedByUser, period: Period) -> Option<BalanceDifference> {
        let user = UserId::parse(&row.user).ok()?;
        let old = match &self.old {
            OldUsage::System(system) => system.used(&user, period).await,
            OldUsage::Export(export) => Ok(export.get(&user).copied().unwrap_or(0)),
        };
        let gate = row.used - row.waiting;
        (old != Ok(gate)).then_some(BalanceDifference { user: row.user, gate, old })
    }
}
