//! The audit: proves that the usage log, the totals and Redis agree, repairs differences, and checks that flushing and
//! resets keep up.

mod error;
pub mod health;
pub mod level_drift;
mod orphan_records;
pub mod price_replay;
pub mod repair;
pub mod replay;
pub mod verify;

pub use self::error::AuditError;
