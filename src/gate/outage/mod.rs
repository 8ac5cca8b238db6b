//! While Redis is unavailable: Postgres accepts settlements, and decides if the operator allows it.

pub(in crate::gate) mod degraded;
pub(in crate::gate) mod inbox;
