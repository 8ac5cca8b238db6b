//! The gate as a library: exactness, holds, idempotency, levels, resets, flushing and loss.

mod admission;
mod away;
mod breaker;
mod flushing;
mod holds;
mod idempotency;
mod levels;
mod loss;
mod one_redis;
mod opening;
mod resets;
mod rollout;
mod sweeping;
mod usage;
mod verifying;
