//! Billing: sets users' levels by their subscriptions in a billing system.

pub(crate) mod subscription;

pub use self::subscription::Billing;
