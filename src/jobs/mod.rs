//! What runs beside the requests. Each job is an idempotent step and a plain loop.

pub mod announcer;
pub mod comparer;
pub mod flusher;
pub mod gauges;
pub mod health;
pub mod outbox;
pub mod repairer;
pub mod replayer;
pub mod resetter;
pub mod rollout_keeper;
pub mod schedule;
pub mod settler;
mod strays;
pub mod sweeper;
pub mod verifier;
pub mod watcher;
