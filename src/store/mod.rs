//! The two servers that the gate stands on. Nothing outside this folder knows Redis commands or SQL.
//!
//! The stores are concrete types, not traits: there is one Redis and one Postgres, and tests use both for real.

pub mod breaker;
pub mod postgres;
pub mod redis;
mod shared_levels;

pub use self::shared_levels::SharedLevels;
