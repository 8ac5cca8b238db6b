//! Settling a hold that Redis cannot vouch for.
//!
//! A hold of another generation may have been settled there. All that was settled there and survived is in Postgres,
//! because a generation opens only after the older streams were drained. So Postgres is asked for the generation, then
//! for the log, and the answer counts only as long as that generation lasts.

use tokio::time::Instant;

use super::{GateError, Inner};
use crate::{
    domain::{
        hold::{Reservation, SETTLE_WINDOW},
        partition::Partition,
    },
    store::{
        postgres::LoggedUsage,
        redis::{Answer, Operation, RedisError, Status},
    },
};

/// How a hold stands.
pub(super) enum Settling {
    /// Redis has answered.
    Answered(Answer),
    /// It was committed in an earlier generation.
    CommittedBefore(LoggedUsage),
}

impl Inner {
    /// Carries out a commit or a release; `operation` makes it, given whether Postgres has vouched for the hold.
    pub(super) async fn settle(
        &self,
        reservation: &Reservation,
        operation: impl Fn(bool) -> Operation,
    ) -> Result<Settling, GateError> {
        let partition = self.partitions.of(&reservation.user);
        let answer = self.call(&reservation.user, operation(false)).await?;
        if answer.status != Status::UnknownHold {
            return Ok(Settling::Answered(answer));
        }
        let deadline = Instant::now() + self.deadline;
        loop {
            let (generation, logged) = self.logged_commit(partition, reservation).await?;
            if let Some(logged) = logged {
                return Ok(Settling::CommittedBefore(logged));
            }
            match self.call_in(Some(generation), partition, &reservation.user, &operation(true)).await {
                Ok(answer) => return Ok(Settling::Answered(answer)),
                Err(RedisError::Stale) if Instant::now() < deadline => {
                    self.meet_stale(partition, generation).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn logged_commit(
        &self,
        partition: Partition,
        reservation: &Reservation,
    ) -> Result<(u32, Option<LoggedUsage>), GateError> {
        // A commit comes after the hold was made, and no hold lives longer than a few hours of extensions. A day
        // to either side keeps the search in the log's partitions of those days.
        let around = SETTLE_WINDOW + chrono::TimeDelta::days(1);
        let (from, to) = (reservation.expires_at - around, reservation.expires_at + around);
        let generation = self.postgres.watermark(partition.number()).await?.generation;
        self.batcher.generations().learn(partition, generation);
        let logged = self.postgres.find_event(reservation.hold, &reservation.user, from, to).await?;
        Ok((generation, logged))
    }
}
