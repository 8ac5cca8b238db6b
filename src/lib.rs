#![doc = "Quota gate."]
pub mod config;
pub mod dev;
pub mod domain;
pub mod gate;
pub mod jobs;
pub mod shutdown;
pub mod store;
pub mod telemetry;
