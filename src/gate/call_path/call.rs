//! Runs one operation.
//!
//! Redis can usually answer. If it does not know the user, the gate loads the user from Postgres and sends the
//! operation again, preceded by a seed. If the partition is not open in the generation that the gate named, the gate
//! reads the generation from Postgres, or opens a new one, and starts the operation again.

use std::sync::Arc;

use tokio::time::Instant;

use crate::gate::{GateError, Inner};
use crate::{
    domain::{
        meter::MeterCode,
        partition::Partition,
        quota::{Quota, Source},
        user_id::UserId,
    },
    store::redis::{Answer, Operation, RedisError, Request},
};

impl Inner {
    /// Runs an operation; loads the user or opens the partition where needed.
    pub(in crate::gate) async fn call(
        self: &Arc<Self>,
        account: (&UserId, MeterCode),
        operation: Operation,
    ) -> Result<Answer, GateError> {
        let deadline = Instant::now() + self.deadline;
        loop {
            if let Some(answer) = self.try_call(None, account, &operation, deadline).await? {
                return Ok(answer);
            }
        }
    }

    /// Runs an operation once. If a `generation` is given, which must come from Postgres, the operation is STALE in any
    /// other. Returns `None` after STALE, once the partition is open; the caller tries again.
    pub(in crate::gate) async fn try_call(
        self: &Arc<Self>,
        generation: Option<u32>,
        account: (&UserId, MeterCode),
        operation: &Operation,
        deadline: Instant,
    ) -> Result<Option<Answer>, GateError> {
        let partition = self.partitions.of(account.0);
        let assumed = generation.unwrap_or_else(|| self.generations.get(partition));
        match self.call_in(generation, partition, account, operation).await {
            Ok(answer) => {
                self.learn_level(answer.record.level).await;
                Ok(Some(answer))
            }
            // Redis changed nothing, so a retry is safe.
            Err(RedisError::Stale) if Instant::now() < deadline => {
                self.recover_from_stale(partition, assumed, deadline).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Calls Redis; if the user is missing there, loads it and calls again.
    async fn call_in(
        &self,
        generation: Option<u32>,
        partition: Partition,
        (user, meter): (&UserId, MeterCode),
        operation: &Operation,
    ) -> Result<Answer, RedisError> {
        let request = Request { user: user.clone(), meter, operation: operation.clone(), seed: None, generation };
        if let Some(answer) = self.batcher.call(partition, request).await? {
            return Ok(answer);
        }
        let loaded = self.loader.load(partition, user, meter).await?;
        self.generations.learn(partition, loaded.generation, None);
        if generation.is_some_and(|needed| needed != loaded.generation) {
            return Err(RedisError::Stale);
        }
        let request = Request {
            user: user.clone(),
            meter,
            operation: operation.clone(),
            seed: Some(loaded.seed),
            generation: Some(loaded.generation),
        };
        match self.batcher.call(partition, request).await? {
            Some(answer) => Ok(answer),
            // The mark of a user who is being forgotten takes no seed.
            None if self.postgres.is_forgotten(user).await.unwrap_or(false) => Err(RedisError::Forgotten),
            None => Err(RedisError::NotExecuted(format!("user {user} is missing after a seed"))),
        }
    }

    pub(in crate::gate) fn quota_of(user: &UserId, answer: &Answer) -> Quota {
        let record = &answer.record;
        Quota {
            user: user.clone(),
            level: record.level,
            period: record.period,
            anchor_day: record.anchor_day,
            quota: record.quota,
            own_quota: record.own_quota,
            blocked: record.blocked,
            used: record.used,
            held: record.held,
            used_today: record.used_today,
            total_used: record.total_used,
            version: record.version,
            as_of: answer.as_of,
            source: Source::Redis,
            limits: answer.limits.clone(),
        }
    }
}
