//! Quota gate: decides, for every message of a chat product, whether its user may still send it.

pub mod dev;
pub mod domain;
pub mod gate;
pub mod jobs;
pub mod store;
