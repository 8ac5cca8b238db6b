//! Settles holds, also those that Redis cannot confirm.
//!
//! A hold of another generation may have been settled in that generation. All its settlements that survived are in
//! Postgres, because a generation opens only after the older streams were drained. So the gate reads the generation
//! from Postgres, then the log. The result is valid only while that generation lasts.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, timeout_at};

use crate::gate::{GateError, Inner};
use crate::{
    domain::{
        calendar::SKEW_MAX,
        hold::{Reservation, SETTLE_WINDOW},
        journal::{Entry, Watermark},
        partition::Partition,
    },
    store::{
        postgres::LoggedUsage,
        redis::{Answer, Operation, ReplyStatus},
    },
};

/// Result of a settlement.
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large variant")]
pub(in crate::gate) enum Settling {
    /// Redis has answered.
    Answered(Answer),
    /// The hold was committed in an earlier generation.
    CommittedBefore(LoggedUsage),
}

impl Inner {
    /// Runs the commit or release that `operation` creates; its argument is true if Postgres has confirmed the hold.
    /// `accepted_at`: when Postgres accepted it, if it did.
    pub(in crate::gate) async fn settle(
        self: &Arc<Self>,
        reservation: &Reservation,
        accepted_at: Option<DateTime<Utc>>,
        operation: impl Fn(bool) -> Operation,
    ) -> Result<Settling, GateError> {
        let account = (&reservation.user, reservation.meter);
        let partition = self.partitions.of(&reservation.user);
        let deadline = Instant::now() + self.deadline;
        let answer = self.call(account, operation(false)).await?;
        if answer.status != ReplyStatus::UnknownHold {
            return Ok(Settling::Answered(answer));
        }
        loop {
            let lookup = self.logged_commit(partition, reservation, accepted_at);
            let (generation, logged) = timeout_at(deadline, lookup).await.map_err(|_| GateError::slow())??;
            if let Some(logged) = logged {
                return Ok(Settling::CommittedBefore(logged));
            }
            if let Some(answer) = self.try_call(Some(generation), account, &operation(true), deadline).await? {
                return Ok(Settling::Answered(answer));
            }
        }
    }

    async fn logged_commit(
        &self,
        partition: Partition,
        reservation: &Reservation,
        accepted_at: Option<DateTime<Utc>>,
    ) -> Result<(u32, Option<LoggedUsage>), GateError> {
        let watermark = self.postgres.watermark(partition.number()).await?;
        self.generations.learn(partition, watermark.generation, Some(watermark.answers_since));
        // Until the settle window is over, Redis remembers what was settled in this generation.
        if let Some(accepted_at) = accepted_at.filter(|at| self.now() + SKEW_MAX > *at + SETTLE_WINDOW) {
            self.require_flushed_until(partition, watermark, accepted_at + SKEW_MAX).await?;
        }
        // A commit follows its hold, which lasts a day at most, also after an extension, whose id has the new expiry. A
        // day to either side limits the search to those days of the log. An accepted commit is charged whenever Redis
        // is back.
        let around = SETTLE_WINDOW + TimeDelta::days(1);
        let (from, to) = (reservation.expires_at - around, reservation.expires_at + around);
        let to = to.max(self.now() + SKEW_MAX);
        let logged = self.postgres.find_event(reservation.hold, &reservation.user, from, to).await?;
        Ok((watermark.generation, logged))
    }

    /// Fails unless all usage journalled up to `until` is in the log. Where Redis has forgotten a settlement, only the
    /// log has it.
    async fn require_flushed_until(
        &self,
        partition: Partition,
        watermark: Watermark,
        until: DateTime<Utc>,
    ) -> Result<(), GateError> {
        if let Some(from) = watermark.position {
            let entries = self.redis.read_stream(partition, watermark.generation, from.id, 2).await?;
            let flushed = match entries.as_slice() {
                [anchor] => anchor.position() == from,
                [anchor, next, ..] => anchor.position() == from && is_after(next, until),
                [] => false,
            };
            if flushed {
                return Ok(());
            }
        }
        let reason = format!("usage of partition {partition} is not in Postgres yet and may contain this charge");
        Err(GateError::unavailable(reason))
    }
}

fn is_after(entry: &Entry, until: DateTime<Utc>) -> bool {
    entry.events().first().is_some_and(|event| event.at > until)
}
