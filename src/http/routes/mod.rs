//! The handlers, one file per resource: wire shapes, then what extracts, calls the gate, and maps.

pub(super) mod admin;
pub(super) mod authorize;
pub(super) mod consume;
pub(super) mod health;
pub(super) mod membership;
pub(super) mod quota;
pub(super) mod quota_stream;
pub(super) mod reservations;
pub(super) mod reset;
pub(super) mod subscription;
