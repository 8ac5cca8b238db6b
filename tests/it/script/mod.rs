//! Compares the script, in a real Redis with a manual clock, to a model of it.

mod answers;
mod journal;
mod model;
mod plans;
mod property;
