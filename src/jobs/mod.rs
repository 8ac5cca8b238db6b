//! What runs beside the requests. Each job is an idempotent step and a plain loop.

pub mod flusher;
pub mod gauges;
pub mod health;
pub mod inbox_worker;
pub mod level_sync;
pub mod quota_watcher;
pub mod resetter;
pub mod rollout_sync;
pub mod schedule;
pub mod sweeper;
