//! Sends a user's grants to Redis: to the record of each meter their version and the whole list of that meter.
//!
//! The list counts only in the generation in which Postgres was read: in a later one, Redis may have charges that the
//! list does not know of. A record applies a list only if its version is higher than what the record has, so a repeated
//! or late list is harmless.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::gate::{Gate, GateError, Inner, error::unexpected};
use crate::{
    domain::{meter::MeterCode, user_id::UserId},
    store::{
        postgres::GrantList,
        redis::{Operation, ReplyStatus},
    },
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
    pub(in crate::gate) async fn send_grants_soon(&self, user: &UserId) {
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
            let chat = self.postgres.grant_list(partition.number(), user, MeterCode::CHAT).await?;
            let Some(chat) = chat else { return Ok(()) };
            // Lists that are read later are not older.
            let (version, meters) = (chat.grants.version, chat.meters.clone());
            let mut is_sent = self.send_list((user, MeterCode::CHAT), chat, deadline).await?;
            for meter in meters {
                let list = self.postgres.grant_list(partition.number(), user, meter).await?;
                let Some(list) = list.filter(|_| is_sent) else { break };
                is_sent = self.send_list((user, meter), list, deadline).await?;
            }
            if is_sent {
                if let Err(error) = self.postgres.note_grants_synced(user, version).await {
                    tracing::warn!(%user, %error, "synced grants were not recorded; Redis will get them again");
                }
                return Ok(());
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Sends a list to a user's record of a meter. A record that is missing is seeded in the same call. Returns false
    /// if the partition was opened meanwhile: the list must be read again.
    async fn send_list(
        self: &Arc<Self>,
        account: (&UserId, MeterCode),
        list: GrantList,
        deadline: Instant,
    ) -> Result<bool, GateError> {
        self.generations.learn(self.partitions.of(account.0), list.generation, None);
        let operation = Operation::BringGrants(list.grants.without_expired(self.now()));
        let answer = self.try_call(Some(list.generation), account, &operation, deadline).await?;
        // Only an answer of a record counts.
        match answer {
            Some(answer) if answer.status != ReplyStatus::Ok => Err(unexpected("bring-grants", answer.status)),
            answer => Ok(answer.is_some()),
        }
    }
}
