//! Gives a user a quota of the user's own, blocks and unblocks users: first in Postgres, then in Redis, like a change
//! of level.

use std::time::Duration;

use tokio::time::timeout;

use crate::gate::{ChangeUser, Gate, GateError, Inner};
use crate::{
    domain::{decision::UserChanged, own_quota::OwnQuota},
    store::postgres::NewUser,
};

impl Gate {
    /// Changes a user's own quota or block. Both stay until they are changed again: over rolls and changes of level,
    /// and after a loss of Redis. AP that are used or held do not change, and holds can still be settled.
    ///
    /// If this returns an error after Postgres has stored the change, Redis is still updated in the background.
    ///
    /// # Errors
    /// [`GateError::LevelChanged`] if another change came first, [`GateError::Forgotten`], [`GateError::Unavailable`]
    /// if Postgres or Redis is unavailable.
    pub async fn change_user(&self, request: ChangeUser) -> Result<UserChanged, GateError> {
        let gate = &self.0;
        let now = gate.now();
        let first = NewUser { calendar: gate.calendar, now };
        let today = gate.calendar.day_start(gate.calendar.day_at(now));
        let ChangeUser { user, change, if_version, author } = request;
        let before = self.quota(&user).await?;
        let changed = gate.postgres.change_user(&user, change, if_version, &author, &first, today).await?;
        let changed = changed.ok_or(GateError::LevelChanged)?;

        // The row is changed: Redis must get the change even if the caller stops waiting.
        let this = self.clone();
        let (of, row) = (user.clone(), changed.after.clone());
        let sent = tokio::spawn(async move { this.0.send_level_to_redis(&of, &row).await });
        let Ok(sent) = timeout(gate.deadline, sent).await else {
            let reason = "the user is changed, but Redis is not updated yet; the gate keeps trying".to_owned();
            return Err(GateError::Unavailable { reason, retry_after: Duration::from_secs(5) });
        };
        let answer = sent.map_err(|error| GateError::Indeterminate { reason: error.to_string() })??;
        let after = Inner::quota_of(&user, &answer);
        Ok(UserChanged { before, after, pending: changed.after.pending, level_version: changed.after.level_version })
    }

    /// Returns what a change would do now. Changes nothing.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Postgres or Redis is unavailable.
    pub async fn preview_user(&self, request: &ChangeUser) -> Result<UserChanged, GateError> {
        let gate = &self.0;
        let (before, _) = self.quota_and_holds(&request.user).await?;
        let today = gate.calendar.day_start(gate.calendar.day_at(gate.now()));
        let row = gate.postgres.find(&request.user, today).await?;
        let mut after = before.clone();
        if let Some(quota) = request.change.quota {
            let of_level = self.levels().coded(before.level).map_or(before.quota, |level| level.quota);
            after.quota = quota.map_or(of_level, OwnQuota::ap);
            after.own_quota = quota.is_some();
        }
        after.blocked = request.change.blocked.unwrap_or(before.blocked);
        let (pending, level_version) = row.map_or((None, 0), |row| (row.pending, row.level_version));
        Ok(UserChanged { before, after, pending, level_version })
    }
}
