#![doc = "Quota gate."]
pub mod domain;
pub mod gate;
pub mod store;
