//! Sends a user's grants to Redis: their version and the whole list.
//!
//! The list counts only in the generation in which Postgres was read: in a later one, Redis may have charges that the
//! list does not know of. A record applies a list only if its version is higher than what the record has, so a repeated
//! or late list is harmless.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::gate::{Gate, GateError, Inner, error::unexpected};
use crate::{
    domain::user_id::UserId,
    store::redis::{Operation, ReplyStatus},
};

/// Pause between two attempts while a partition is being opened.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl Gate {
    /// Sends the grants of a user to Redis, and records the version that a record has received.
    ///
    /// # Errors
    /// If Redis or Postgres is unavailable. The grant sync of any gate tries again.
    pub async fn send_grants(&self, user: &UserId) -> Result<(), GateError> {
        self.0.send_grants(user).await
    }

    /// Sends the grants of a user in a task, which continues if the caller stops waiting. Waits for it until the gate's
    /// deadline.
    pub(super) async fn send_grants_soon(&self, user: &UserId) {
        let (this, to) = (self.clone(), user.clone());
        let sending = tokio::spawn(async move { this.send_grants(&to).await });
        match timeout(self.0.deadline, sending).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(%user, %error, "grants are not in Redis yet; the grant sync sends them");
            }
            Ok(Err(_)) | Err(_) => tracing::warn!(%user, "grants are not in Redis yet; the grant sync sends them"),
        }
    }
}

impl Inner {
    async fn send_grants(self: &Arc<Self>, user: &UserId) -> Result<(), GateError> {
        let deadline = Instant::now() + self.deadline;
        let partition = self.partitions.of(user);
        loop {
            let Some(list) = self.postgres.grant_list(partition.number(), user).await? else { return Ok(()) };
            self.generations.learn(partition, list.generation, None);
            let version = list.grants.version;
            let operation = Operation::BringGrants(list.grants.without_expired(self.now()));
            // A record that is missing is seeded in the same call. Only an answer of a record counts.
            if let Some(answer) = self.try_call(Some(list.generation), user, &operation, deadline).await? {
                if answer.status != ReplyStatus::Ok {
                    return Err(unexpected("bring-grants", answer.status));
                }
                if let Err(error) = self.postgres.note_grants_synced(user, version).await {
                    tracing::warn!(%user, %error, "synced grants were not recorded; Redis will get them again");
                }
                return Ok(());
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}
