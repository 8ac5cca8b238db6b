//! What Postgres accepts while Redis is unavailable.

pub(in crate::store::postgres) mod inbox;
