//! Compares the level and quota of a record with its row.
//!
//! Unlike usage, a level has no journal: a change is in Postgres first, and in Redis shortly after. So only a record
//! with the level version of its row is compared, and a difference counts only if it is still there when both are read
//! again.

use std::{cmp::Ordering, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use super::{
    error::AuditError,
    verify::{Compared, Verifier},
};
use crate::domain::{
    ap::Ap,
    calendar::AnchorDay,
    level::{LevelCode, Levels},
    meter::MeterCode,
    user_id::UserId,
};

/// How often a difference must be read again.
const CONFIRMATIONS: u32 = 3;
const CONFIRMATION_PAUSE: Duration = Duration::from_millis(50);
/// Users who are read again concurrently.
const CONFIRMED_AT_A_TIME: usize = 20;

/// A level, its quota, the level of the next period, and what was set by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Level.
    pub level: LevelCode,
    /// AP of the period.
    pub quota: Ap,
    /// Level of the next period, if another.
    pub pending: Option<LevelCode>,
    /// Day of the month on which the periods begin.
    pub anchor_day: AnchorDay,
    /// Whether the quota is the user's own.
    pub own_quota: bool,
    /// Whether new messages are refused.
    pub blocked: bool,
}

/// A record whose level or quota is not that of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelDrift {
    /// User of the record.
    pub user: UserId,
    /// Meter of the record.
    pub meter: MeterCode,
    /// What the record has.
    pub found: Standing,
    /// What it should have by the row.
    pub expected: Standing,
    /// Level version of the record.
    pub level_version: u32,
}

impl LevelDrift {
    /// Compares a user in both stores. Without `levels`, records that have rolled before their row are not compared.
    pub(super) fn of(user: &Compared, levels: Option<&Levels>) -> Option<Self> {
        let (row, record) = (&user.row, user.record.as_ref()?);
        // The next access replaces a record of an older generation, and sends a row's newer level.
        if record.generation != user.generation || record.level_version < row.level_version {
            return None;
        }
        let expected = match row.period.cmp(&record.period) {
            // The next access rolls the record too.
            Ordering::Greater => return None,
            Ordering::Equal => (row.level, row.quota, row.pending),
            Ordering::Less => {
                let level = levels?.coded(row.pending.unwrap_or(row.level))?;
                (level.code, if row.own_quota { row.quota } else { level.quota }, None)
            }
        };
        let (level, quota, pending) = expected;
        // Each operation on another meter takes the quota from the levels in Redis, so that of the record can be older.
        let quota = if user.meter.is_chat() { quota } else { record.quota };
        let expected = Standing {
            level,
            quota,
            pending,
            anchor_day: row.anchor_day,
            own_quota: row.own_quota && user.meter.is_chat(),
            blocked: row.blocked,
        };
        let found = Standing {
            level: record.level,
            quota: record.quota,
            pending: record.pending,
            anchor_day: record.anchor_day,
            own_quota: record.own_quota,
            blocked: record.blocked,
        };
        (found != expected || record.level_version > row.level_version).then(|| Self {
            user: row.user.clone(),
            meter: user.meter,
            found,
            expected,
            level_version: record.level_version,
        })
    }
}

impl Verifier {
    /// Returns the levels, or none while a change of them has not reached all users.
    pub(super) async fn levels(&self) -> Result<Option<Levels>, AuditError> {
        let levels = self.postgres.all_levels().await?;
        Ok((!self.postgres.is_level_change_unfinished().await?).then_some(levels))
    }

    /// Returns the differences of these users and meters that stay, in their order.
    pub(super) async fn confirm(&self, suspects: Vec<(UserId, MeterCode)>) -> Result<Vec<LevelDrift>, AuditError> {
        let confirming =
            stream::iter(suspects).map(|(user, meter)| async move { self.confirm_one(&user, meter).await });
        let found = confirming.buffered(CONFIRMED_AT_A_TIME);
        found.try_filter_map(|drift| async move { Ok(drift) }).try_collect().await
    }

    /// Returns the difference of a user's level if it is still there each time both stores are read again.
    async fn confirm_one(&self, user: &UserId, meter: MeterCode) -> Result<Option<LevelDrift>, AuditError> {
        let mut drift = None;
        for _ in 0..CONFIRMATIONS {
            sleep(CONFIRMATION_PAUSE).await;
            let levels = self.levels().await?;
            let Some(compared) = self.compare_account(user, meter).await? else { return Ok(None) };
            drift = LevelDrift::of(&compared, levels.as_ref());
            if drift.is_none() {
                return Ok(None);
            }
        }
        Ok(drift)
    }
}
