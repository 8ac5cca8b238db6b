//! The proxy: an OpenAI-compatible API behind the gate.
//!
//! A client sends the user's JWT as its API key. The gate reserves the model's cost, sends the request to the upstream
//! with the operator's key, streams the answer to the client, and settles as the [middleware](quota_gate_axum) does.
//!
//! | file | what |
//! | --- | --- |
//! | `proxy` | the handlers and their shared state |
//! | `request` | the members of a request that the gate reads, and the one that it adds |
//! | `unambiguous_keys` | rejects member names that only some parsers distinguish |
//! | `model_path` | the upstream's path of one model |
//! | `upstream` | the client for the upstream: headers, timeouts |
//! | `metered_stream` | the answer's body: adds nothing, delays only incomplete events; time limits |
//! | `decoding`, `form` | the body's compression and form, by its first bytes |
//! | `reading` | what an answer says, and which part of it the client gets |
//! | `events`, `usage` | server-sent events and their content |
//! | `progress` | how far an answer has come: nothing, content, complete or failed |
//! | `members` | the members of a JSON object, each read on its own |
//! | `error` | errors in OpenAI's format |

mod decoding;
mod error;
mod events;
mod form;
mod members;
mod metered_stream;
mod model_path;
mod progress;
pub(crate) mod proxy;
mod reading;
mod request;
mod token_meter;
mod unambiguous_keys;
mod upstream;
mod usage;

pub(crate) use self::{
    error::{OpenAiError, no_such_method, other_paths},
    proxy::{chat_completions, model, models, responses},
};
pub use self::{
    proxy::{Proxy, ProxyLimits},
    upstream::{StreamUsage, Upstream, UpstreamOptions},
};
