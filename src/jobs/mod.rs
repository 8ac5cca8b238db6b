//! What runs beside the requests. Each job is an idempotent step and a plain loop.

pub mod announcer;
pub mod comparer;
pub mod dual_writer;
pub mod flusher;
pub mod gauges;
pub mod health;
pub mod notifier;
pub mod old_credits;
pub mod repairer;
pub mod replayer;
pub mod resetter;
pub mod rollout_keeper;
pub mod schedule;
pub mod settler;
pub mod sweeper;
pub mod verifier;
pub mod watcher;
pub mod webhook;
