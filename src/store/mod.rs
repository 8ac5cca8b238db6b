//! Access to Redis and Postgres. Only this folder contains Redis commands and SQL.
//!
//! The stores are concrete types, not traits: each has one implementation, and tests use real servers.

pub mod breaker;
pub mod postgres;
pub mod redis;
mod shared_levels;

pub use self::shared_levels::SharedLevels;
