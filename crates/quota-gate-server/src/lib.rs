//! The program `quota-gate`: everything that a service needs besides the library.
//!
//! | part | what |
//! | --- | --- |
//! | [`http`] | routes, answers, authentication, the server loop |
//! | [`openai`] | the proxy to an OpenAI-compatible API |
//! | [`envoy`] | Envoy's `RateLimitService` over gRPC |
//! | [`billing`] | levels that follow subscriptions |
//! | [`outbox`] | deliveries to other systems: webhooks, the old credits system |
//! | [`outbound`] | HTTP client for the gate's own requests |
//! | [`app`], [`config`], [`telemetry`], [`shutdown`] | settings, logs, metrics and traces, start and stop |
//! | [`cli`] | the commands, one file each |

pub mod app;
pub mod billing;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod envoy;
mod hex;
pub mod http;
pub mod openai;
pub mod outbound;
pub mod outbox;
mod price_replay;
pub mod reloadable;
pub mod shutdown;
pub mod telemetry;
