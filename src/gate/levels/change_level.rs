//! Changes a user's level, first in Postgres, then in Redis.
//!
//! Redis is retried until it succeeds. If this gate stops first, the level sync of any other gate continues
//! (`jobs/level_sync.rs`).

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::gate::{ChangeLevel, Gate, GateError, Inner, call_path::loader::user_level, error::unexpected};
use crate::{
    domain::{
        InvalidInput,
        decision::{LevelChanged, LevelPreview},
        level::{Level, LevelName, Levels},
        level_change::Timing,
        meter::MeterCode,
        quota::Quota,
        user_id::UserId,
    },
    store::{
        postgres::{NewLevel, NewUser, QuotaRow},
        redis::{Answer, Operation, ReplyStatus, UserLevel},
    },
};

/// Pause between two attempts to update Redis.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

impl Gate {
    /// Changes a user's level: upgrades immediately, downgrades at the next period (immediately if requested).
    ///
    /// If this returns an error after Postgres has stored the change, Redis is still updated in the background.
    ///
    /// # Errors
    /// [`GateError::Invalid`] for a level that is not offered, [`GateError::LevelChanged`] if another change came
    /// first, [`GateError::Unavailable`] if Postgres or Redis is unavailable.
    pub async fn change_level(&self, request: ChangeLevel) -> Result<LevelChanged, GateError> {
        let gate = &self.0;
        let levels = self.levels();
        let target = offered(&levels, &request.level)?;
        let now = gate.now();
        let first = NewUser { calendar: gate.calendar, now };
        let today = gate.calendar.day_start(gate.calendar.day_at(now));
        let target = NewLevel {
            level: &target.name,
            effective: request.effective,
            anchor_day: request.anchor_day,
            begins: None,
        };
        let change = gate
            .postgres
            .change_level(&request.user, target, request.if_version, &request.author, &first, today)
            .await?;
        let change = change.ok_or(GateError::LevelChanged)?;

        // The row is changed: Redis must get the change even if the caller stops waiting.
        let this = self.clone();
        let (user, row) = (request.user.clone(), change.after.clone());
        let sent = tokio::spawn(async move { this.0.send_level_to_redis(&user, &row).await });
        let Ok(sent) = timeout(gate.deadline, sent).await else {
            let reason = "the level is changed, but Redis is not updated yet; the gate keeps trying".to_owned();
            return Err(GateError::Unavailable { reason, retry_after: Duration::from_secs(5) });
        };
        let answer = sent.map_err(|error| GateError::Indeterminate { reason: error.to_string() })??;
        Ok(LevelChanged {
            previous: change.before.level,
            pending: change.after.pending,
            level_version: change.after.level_version,
            quota: Inner::quota_of(&request.user, &answer),
        })
    }
}

impl Gate {
    /// Returns what a level change would do now. Changes nothing.
    ///
    /// # Errors
    /// [`GateError::Invalid`] for a level that is not offered, [`GateError::Unavailable`] if Postgres or Redis is
    /// unavailable.
    pub async fn preview_level(&self, request: &ChangeLevel) -> Result<LevelPreview, GateError> {
        let gate = &self.0;
        let levels = self.levels();
        let target = offered(&levels, &request.level)?;
        let (before, _) = self.quota_and_holds(&request.user).await?;
        let today = gate.calendar.day_start(gate.calendar.day_at(gate.now()));
        let row = gate.postgres.find(&request.user, today).await?;
        let (pending_before, level_version) = row.map_or((None, 0), |row| (row.pending, row.level_version));
        let mut after = Quota { anchor_day: request.anchor_day.unwrap_or(before.anchor_day), ..before.clone() };
        let of_level =
            levels.coded(before.level).filter(|_| before.own_quota).map_or(before.quota, |level| level.quota);
        let timing = request.effective.timing(of_level, target.quota);
        let pending = match timing {
            Timing::Now => {
                after.level = target.code;
                if !before.own_quota {
                    after.quota = target.quota;
                }
                None
            }
            Timing::NextPeriod => Some(target.code),
        };
        Ok(LevelPreview { before, pending_before, after, pending, level_version })
    }
}

impl Gate {
    /// Updates Redis after a level was changed in Postgres by other means, such as an import.
    ///
    /// # Errors
    /// [`GateError::Unavailable`] if Postgres is unavailable. Redis is retried until it answers.
    pub async fn refresh_level(&self, user: &UserId) -> Result<(), GateError> {
        let today = self.0.calendar.day_start(self.0.calendar.day_at(self.0.now()));
        if let Some(row) = self.0.postgres.find(user, today).await? {
            self.0.send_level_to_redis(user, &row).await?;
        }
        Ok(())
    }
}

fn offered<'a>(levels: &'a Levels, name: &LevelName) -> Result<&'a Level, InvalidInput> {
    levels.offered(name.as_str()).ok_or_else(|| {
        let known: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        InvalidInput::new("membershipLevel", format!("must be one of {}", known.join(", ")))
    })
}

impl Inner {
    /// Sends a level to the user's record of each meter until it succeeds. The level version makes repeats harmless.
    /// Returns the answer of the chat's record.
    ///
    /// A record that is missing is created first: otherwise another gate could create it later from a row that it has
    /// read before the change.
    pub(super) async fn send_level_to_redis(
        self: &Arc<Self>,
        user: &UserId,
        row: &QuotaRow,
    ) -> Result<Answer, GateError> {
        let answer = self.set_level((user, MeterCode::CHAT), user_level(row)).await?;
        let levels = self.levels.get();
        for meter in levels.meters() {
            self.set_level((user, meter.code), user_level(row).on_meter(meter)).await?;
        }
        if let Err(error) = self.postgres.note_synced(user, row.level_version, levels.meters().len()).await {
            tracing::warn!(%user, %error, "a synced level was not recorded; Redis will get it again");
        }
        Ok(answer)
    }

    async fn set_level(self: &Arc<Self>, account: (&UserId, MeterCode), level: UserLevel) -> Result<Answer, GateError> {
        let (user, mut pause) = (account.0, RETRY_PAUSE_MIN);
        loop {
            let answer = self.call(account, Operation::SetLevel(level)).await;
            match answer {
                Ok(answer) if answer.status == ReplyStatus::Ok => return Ok(answer),
                // By the clock of Redis the record's month is not over yet; it will be within the allowed skew.
                Ok(answer) if answer.status == ReplyStatus::Behind => {}
                Ok(answer) => return Err(unexpected("set-level", answer.status)),
                Err(error) => tracing::warn!(%user, %error, "a level change has not reached Redis yet"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }
}
