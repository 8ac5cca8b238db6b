//! What runs beside the requests. Each job is an idempotent step and a plain loop.

pub mod flusher;
pub mod sweeper;
