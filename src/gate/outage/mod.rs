//! While Redis is unavailable: settlements that Postgres accepts, and decisions by Postgres if the operator allows them.

pub(in crate::gate) mod degraded;
pub(in crate::gate) mod inbox;
