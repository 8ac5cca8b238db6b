//! The path of one operation: Redis first, then Postgres for users whom Redis does not have.

pub(in crate::gate) mod call;
pub(in crate::gate) mod loader;
