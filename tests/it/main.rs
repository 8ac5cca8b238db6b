//! All integration tests, in one binary: they share one build and one Postgres.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod dev_servers;
mod layers;
mod script;
mod support;
mod tidy;
