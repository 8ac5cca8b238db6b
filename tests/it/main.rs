//! All integration tests, in one binary: they share one build and one Postgres.
mod script;
mod support;
