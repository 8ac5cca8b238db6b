//! Envoy's `RateLimitService` v3 over gRPC: Envoy asks it before it passes a request on.
//!
//! A descriptor names the user, and what the message costs by `ap` or by `model`; `hits_addend` counts messages. The charge is
//! made with the question: Envoy's protocol has no second step. Protocol:
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ratelimit/v3/rls.proto>.
//!
//! | file | what |
//! | --- | --- |
//! | `messages` | the messages on the wire, as far as the gate reads and writes them |
//! | `descriptor` | whose message it is, and what it costs |
//! | `service` | the call, and the server |

mod descriptor;
mod messages;
mod service;

pub use self::service::{RateLimitService, serve};
