//! The gate as a library: exactness, holds, idempotency, levels, resets, flushing and loss.

mod admission;
mod away;
mod breaker;
mod flushing;
mod holds;
mod idempotency;
mod level_changes;
mod levels;
mod loss;
mod opening;
mod resets;
mod rollout;
mod sweeping;
mod usage;
mod verifying;
