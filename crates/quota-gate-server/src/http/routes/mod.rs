//! The handlers, one file per resource: wire types, then functions that extract, call the gate, and map.

pub(crate) mod admin;
pub(crate) mod authorize;
pub(crate) mod consume;
pub(crate) mod grants;
pub(crate) mod health;
pub(crate) mod level;
pub(crate) mod quota;
pub(crate) mod quota_stream;
pub(crate) mod reservations;
pub(crate) mod reset;
pub(crate) mod transfers;
