//! Envoy's `RateLimitService` v3 over gRPC. Envoy calls it before forwarding a request.
//!
//! A descriptor names the user, and the message's cost by `ap` or by `model`; `hits_addend` is the number of messages.
//! The call also charges, because Envoy's protocol has no second step. Protocol:
//! <https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ratelimit/v3/rls.proto>.
//!
//! | file | what |
//! | --- | --- |
//! | `messages` | the wire messages, with the fields that the gate reads or writes |
//! | `descriptor` | a message's user and cost |
//! | `service` | the call and the server |

mod descriptor;
mod messages;
mod service;

pub use self::service::{RateLimitService, serve};
