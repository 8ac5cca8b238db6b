//! Quota gate: decides for each message of a chat product whether the user may send it.
//!
//! Each user has a monthly allowance of AP, by membership level. A Lua script in Redis checks, charges and journals in
//! one atomic step. A flusher writes each charge to Postgres exactly once. Redis can always be rebuilt from Postgres.
//!
//! | part | contents |
//! | --- | --- |
//! | [`domain`] | values and rules; no I/O |
//! | [`store`] | access to Redis (`store::redis`) and Postgres (`store::postgres`) |
//! | [`gate`] | the use cases; [`gate::Gate`] is what an application calls |
//! | [`jobs`] | background loops |
//! | [`audit`] | verify, repair, replay, price replay |
//!
//! Each part uses only those above it.

pub mod audit;
pub mod domain;
pub mod gate;
pub mod jobs;
pub mod runtime;
pub mod store;
mod task;
