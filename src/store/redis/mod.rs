//! Redis: records, the script that decides, and the usage streams. The only importer of the `redis` crate.
//!
//! | file | contents |
//! | --- | --- |
//! | `keys` | names of all keys |
//! | `fence`, `generations` | which generation is open and in which Redis; which one this gate assumes to be open |
//! | `record`, `tails` | the packed state of one user; its windows and grants |
//! | `levels` | the quotas and limits of the levels |
//! | `operation`, `seed`, `idempotency`, `reply` | input and output of the script |
//! | `script` | the Lua source, calling it and loading it |
//! | `batcher`, `wire`, `tls` | combines concurrent requests into script calls; the connections for them |
//! | `usage_stream`, `event_blocks`, `view` | the journal; its extended events; records and journal at one moment |
//! | `partition` | closes, opens, trims and sweeps a partition |
//! | `forget` | replaces the record of a user who is being forgotten |
//! | `connection`, `server_info`, `error` | the connection pool, server information, what an error proves |

pub mod batcher;
pub mod connection;
pub mod error;
mod event_blocks;
pub mod fence;
mod fingerprints;
mod forget;
pub mod generations;
mod idempotency;
pub mod keys;
mod levels;
pub mod operation;
pub(crate) mod packed;
pub mod partition;
pub mod record;
pub mod reply;
pub mod rights;
pub mod script;
mod seed;
pub mod server_info;
mod tails;
mod tls;
pub mod usage_stream;
mod view;
mod wire;

pub use self::{
    batcher::{Batcher, BatcherOptions},
    connection::{Redis, RedisOptions},
    error::RedisError,
    fence::{Fence, ServerId},
    forget::ReadRecord,
    generations::Generations,
    idempotency::Idempotency,
    operation::{Operation, Request},
    partition::{Drained, Draining, Swept},
    record::{Hold, Record},
    reply::{Answer, ReplyStatus},
    rights::RedisRights,
    script::{Context, Memory, Script},
    seed::{Seed, UserLevel},
    server_info::RedisServerInfo,
    usage_stream::decode_entry,
    view::View,
};
