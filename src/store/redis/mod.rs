//! Redis: records, the script that decides, and the usage streams. The only importer of the `redis` crate.
//!
//! | file | what |
//! | --- | --- |
//! | `keys` | how every key is spelled |
//! | `fence`, `generations` | which generation is open, and in which Redis; which one this gate believes to be |
//! | `record` | the packed state of one user |
//! | `operation`, `reply` | what goes into the script and what comes out |
//! | `script` | the Lua source, its call and its reload |
//! | `batcher`, `wire`, `tls` | turns concurrent callers into calls; the connection on which they are made |
//! | `usage_stream`, `view` | reads the journal; records and journal at one moment |
//! | `partition` | closes, opens, trims and sweeps a partition |
//! | `connection`, `server_info`, `error` | the pool, what Redis says of itself, and what a failure proves |

pub mod batcher;
pub mod connection;
pub mod error;
pub mod fence;
mod fingerprints;
pub mod generations;
pub mod keys;
pub mod operation;
pub(crate) mod packed;
pub mod partition;
pub mod record;
pub mod reply;
pub mod script;
pub mod server_info;
mod tls;
pub mod usage_stream;
mod view;
mod wire;

pub use self::{
    batcher::{Batcher, BatcherOptions},
    connection::{Redis, RedisOptions},
    error::RedisError,
    fence::{Fence, ServerId},
    generations::Generations,
    operation::{Idempotency, Operation, Request, Seed, UserLevel},
    partition::{Drained, Draining, Swept},
    record::{Hold, Record},
    reply::{Answer, ReplyStatus},
    script::{Context, Script},
    server_info::RedisServerInfo,
    usage_stream::decode_entry,
    view::View,
};
