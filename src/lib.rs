#![doc = "Quota gate."]
pub mod domain;
pub mod gate;
pub mod jobs;
pub mod store;
