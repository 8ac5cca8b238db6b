//! The audit: proves that the usage log, the totals and Redis agree, and repairs differences.

mod error;
mod orphan_records;
pub mod repair;
pub mod replay;
pub mod verify;

pub use self::error::AuditError;
