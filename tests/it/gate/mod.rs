//! The gate as a library: exactness, holds, idempotency, membership, resets, flushing and loss.

mod admission;
mod away;
mod breaker;
mod flushing;
mod holds;
mod idempotency;
mod loss;
mod membership;
mod opening;
mod resets;
mod rollout;
mod sweeping;
mod usage;
mod verifying;
