//! All integration tests, in one binary: they share one build and one Postgres.

mod binary;
mod contract;
mod dev_servers;
mod fuzz;
mod gate;
mod layers;
mod middleware;
mod price_replay;
mod runtime;
mod script;
mod servers;
mod support;
mod tidy;
mod upgrade;
