#![doc = "Quota gate."]
pub mod domain;
