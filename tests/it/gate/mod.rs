//! The gate as a library: exactness, holds, idempotency, levels, resets, flushing and loss.

mod admission;
mod away;
mod breaker;
mod flushing;
mod grants;
mod holds;
mod idempotency;
mod level_changes;
mod levels;
mod loss;
mod one_redis;
mod opening;
mod partitions;
mod pooler;
mod resets;
mod rolling_upgrade;
mod rollout;
mod row_locks;
mod subscriptions;
mod sweeping;
mod usage;
mod verifying;
mod windows;
