//! Quota gate: decides, for every message of a chat product, whether its user may still send it.
//!
//! Each user has a monthly allowance of AP by membership level. One Lua script in Redis checks, charges and
//! journals in one atomic step; a flusher carries the journal to Postgres, each charge exactly once; Postgres is the durable
//! truth from which Redis can always be rebuilt.
//!
//! The map of the house, in the only direction in which one part may use another:
//!
//! [`domain`] → [`store`] → [`gate`] → {[`jobs`], [`middleware`], [`http`]} → [`app`] → [`cli`]
//!
//! | part | what |
//! | --- | --- |
//! | [`domain`] | values and rules; no I/O |
//! | [`store`] | the two servers: `store::redis` and `store::postgres` |
//! | [`gate`] | the use cases; [`gate::Gate`] is what an application embeds |
//! | [`jobs`] | flusher, resetter, sweeper, announcer, verifier |
//! | [`middleware`] | the gate before any axum service: reserve, answer, settle |
//! | [`http`] | routes, authentication, problems |
//! | [`outbound`] | requests that the gate makes itself |
//! | [`app`], [`config`], [`telemetry`], [`shutdown`] | put it together |
//! | [`cli`], [`dev`] | the commands, and the private servers of `dev` and of the tests |

pub mod app;
pub mod cli;
pub mod config;
pub mod dev;
pub mod domain;
pub mod gate;
pub mod http;
pub mod jobs;
pub mod middleware;
pub mod outbound;
pub mod shutdown;
pub mod store;
pub mod telemetry;
