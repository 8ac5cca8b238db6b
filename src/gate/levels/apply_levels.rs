//! Changes the levels of the installation, and moves every user to the new quotas.
//!
//! Decision 0018 has the order and its reasons. Each step may be repeated, and a change that was interrupted is
//! finished by applying the same levels again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::gate::Gate;
use crate::{
    domain::{
        level::{LevelName, LevelTerms},
        level_difference::LevelDifference,
        user_id::UserId,
    },
    store::{postgres::PostgresError, redis::RedisError},
};

/// Pause between two looks at a condition, or two passes. Row locks are short.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait until every partition has the levels: longer than an outage of Redis that an operator would wait for.
const SEND_MAX: Duration = Duration::from_mins(1);
/// Longest wait for older transactions: longer than any that writes.
const OLDER_TRANSACTIONS_MAX: Duration = Duration::from_mins(1);
/// The clocks of a gate and of Redis differ by less, or Redis refuses to decide.
const SKEW_MAX: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

/// What applying levels has done so far, for people who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyProgress {
    /// The levels are those of the installation now.
    Stored(Vec<LevelDifference>),
    /// Every partition in Redis has them.
    Sent,
    /// So many users are moved.
    Moving(u64),
}

/// Why levels could not be applied. What was done stays done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Postgres is unavailable, or refuses the levels.
    #[error("{0}")]
    Postgres(#[from] PostgresError),
    /// Redis is unavailable.
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    /// The levels are those of the installation, but not in Redis yet. Running gates send them.
    #[error(
        "the levels are stored, but not in every partition of Redis yet ({0}): apply them again, to move all users"
    )]
    Sending(String),
}

impl Gate {
    /// Makes these levels those of the installation, and gives every user the quota of the user's level now, higher or
    /// lower. Users of a level that is not in the list keep it with its quota. Returns the number of users who were
    /// moved; the level sync sends their quotas to Redis.
    ///
    /// # Errors
    /// If a store is unavailable, or there are too many levels. What was done stays done; apply again to finish.
    pub async fn apply_levels(
        &self,
        configured: &[(LevelName, LevelTerms)],
        progress: impl Fn(&ApplyProgress) + Send + Sync,
    ) -> Result<u64, ApplyError> {
        let known_version = self.version_to_exceed().await?;
        let (version, differences) = self.0.postgres.change_levels(configured, known_version, self.now()).await?;
        let stored_at = self.0.postgres.server_time().await?;
        progress(&ApplyProgress::Stored(differences));
        self.send_until_sent().await?;
        progress(&ApplyProgress::Sent);
        // From here on no record rolls with an older quota. Rows of transactions that have read older levels are seen
        // when those have ended.
        let began = Instant::now();
        while self.0.postgres.has_transaction_before(stored_at).await? && began.elapsed() < OLDER_TRANSACTIONS_MAX {
            sleep(PAUSE).await;
        }
        self.await_same_period().await;
        let moved = self.move_everybody(&progress).await?;
        self.0.postgres.note_moved(version, self.now()).await?;
        Ok(moved)
    }

    /// Returns the version that a change must exceed to replace what Redis has. Redis may have a newer version, or
    /// other quotas under the same one, if Postgres was restored or changed by other means.
    pub(super) async fn version_to_exceed(&self) -> Result<u32, ApplyError> {
        let levels = self.0.postgres.all_levels().await?;
        let mut known_version = 0;
        for partition in self.0.partitions.all() {
            let version = self.0.redis.level_version(partition).await?;
            let differs = version == levels.version() && !self.0.redis.has_levels(partition, &levels).await?;
            known_version = known_version.max(version + u32::from(differs));
        }
        Ok(known_version)
    }

    pub(super) async fn send_until_sent(&self) -> Result<(), ApplyError> {
        let began = Instant::now();
        loop {
            let reason = match self.sync_levels().await {
                Ok(true) => return Ok(()),
                Ok(false) => "a partition is being opened".to_owned(),
                Err(error) => error.to_string(),
            };
            if began.elapsed() > SEND_MAX {
                return Err(ApplyError::Sending(reason));
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits while a day, and so the period of some users, is about to end: by the clock of Redis it may have ended, so
    /// that records have rolled with the older quota whose rows have not.
    async fn await_same_period(&self) {
        let calendar = self.0.calendar;
        while calendar.day_at(self.now() + SKEW_MAX) != calendar.day_at(self.now()) {
            sleep(PAUSE).await;
        }
    }

    /// Moves all users, in passes until none is left whose row was locked.
    async fn move_everybody(&self, progress: &(impl Fn(&ApplyProgress) + Send + Sync)) -> Result<u64, ApplyError> {
        let (calendar, mut moved) = (self.0.calendar, 0);
        loop {
            let (mut after, mut left): (Option<UserId>, u64) = (None, 0);
            loop {
                let batch = self.0.postgres.move_users(calendar, self.now(), after.as_ref()).await?;
                let Some(batch) = batch else { break };
                moved += batch.moved;
                left += batch.left;
                after = Some(batch.last);
                if batch.moved > 0 {
                    progress(&ApplyProgress::Moving(moved));
                }
            }
            if left == 0 {
                return Ok(moved);
            }
            sleep(PAUSE).await;
        }
    }
}
