//! Quota gate: decides, for every message of a chat product, whether its user may still send it.
//!
//! Each user has a monthly allowance of AP by membership level. One Lua script in Redis checks, charges and journals in one atomic
//! step; a flusher writes the journal to Postgres, each charge exactly once; Redis can always be rebuilt from Postgres.
//!
//! | part | what |
//! | --- | --- |
//! | [`domain`] | values and rules; no I/O |
//! | [`store`] | the two servers: `store::redis` and `store::postgres` |
//! | [`gate`] | the use cases; [`gate::Gate`] is what an application calls |
//! | [`jobs`] | the loops that run beside requests |
//! | [`audit`] | verify, repair, replay |
//!
//! Each part uses only those above it.

pub mod audit;
pub mod domain;
pub mod gate;
pub mod jobs;
pub mod runtime;
pub mod store;
mod task;
