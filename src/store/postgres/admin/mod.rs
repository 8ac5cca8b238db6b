//! Queries for administrators.

pub(in crate::store::postgres) mod heavy_users;
pub(in crate::store::postgres) mod listing;
