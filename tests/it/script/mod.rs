//! The script against a model of it: the real script in a real Redis, with a clock that the test moves.

mod model;
mod property;
