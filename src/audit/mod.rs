//! The audit: proves that the usage log, the totals and Redis agree, repairs differences, and checks that flushing and
//! resets keep up. Forgets users.

mod error;
pub mod forget;
mod grant_difference;
pub mod health;
pub mod level_drift;
mod orphan_records;
pub mod price_replay;
pub mod repair;
pub mod replay;
mod unflushed;
pub mod verify;
mod window_difference;

pub use self::{error::AuditError, grant_difference::GrantDifference, window_difference::WindowDifference};
