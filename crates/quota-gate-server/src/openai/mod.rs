//! The proxy: an OpenAI-compatible API with the gate before it.
//!
//! A client of that API sends its user's JWT as the API key. The gate reserves what the model costs, asks the upstream with the
//! operator's key, hands every piece of the answer on as it comes, and settles as the [middleware](quota_gate_axum) does.
//!
//! | file | what |
//! | --- | --- |
//! | `proxy` | the handlers, and what they share |
//! | `request` | what the gate reads of a request, and the one thing that it adds |
//! | `unambiguous_keys` | names in a request that only some readers tell apart |
//! | `model_path` | where the upstream has one model |
//! | `upstream` | the way to the upstream and back: headers, time limits |
//! | `metered_stream` | the answer's body on its way: reads usage and failures, adds nothing, holds nothing back but half an event |
//! | `events`, `usage` | server-sent events, and what they say |
//! | `error` | errors as clients of that API expect them |

mod error;
mod events;
mod metered_stream;
mod model_path;
pub(crate) mod proxy;
mod request;
mod unambiguous_keys;
mod upstream;
mod usage;

pub(crate) use self::{
    error::OpenAiError,
    proxy::{chat_completions, model, models, responses},
};
pub use self::{
    proxy::{Proxy, ProxyLimits},
    upstream::{Upstream, UpstreamOptions},
};
