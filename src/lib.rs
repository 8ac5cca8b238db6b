#![doc = "Quota gate."]
pub mod domain;

pub mod store;
