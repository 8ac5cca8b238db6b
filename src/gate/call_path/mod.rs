//! The path of one operation: Redis first, then Postgres for users who are not in Redis. After a loss of Redis data,
//! requests with an Idempotency-Key are looked up in Postgres before.

pub(in crate::gate) mod call;
pub(in crate::gate) mod loader;
pub(in crate::gate) mod lookup;
