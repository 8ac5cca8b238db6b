//! The price replay: against a naive calculation, and against gates that really run with the proposal.

mod gate;
mod property;
