//! The path of one operation: Redis first, then Postgres for users who are not in Redis.

pub(in crate::gate) mod call;
pub(in crate::gate) mod loader;
