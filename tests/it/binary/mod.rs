//! The built binary, as people use it: `dev` and what talks to it, over HTTP and on the command line.

mod admin;
mod alerts;
mod api;
mod bad_input;
mod clients;
mod commands;
mod deploy;
mod dev;
mod doctor;
mod dual_write;
mod envoy;
mod gateway;
mod metrics;
mod nginx;
mod outage;
mod overload;
mod privileges;
mod process;
mod proxy;
mod quota_stream;
mod rollout;
mod schemathesis;
mod secrets;
mod tls;
mod traffic;
mod web;
