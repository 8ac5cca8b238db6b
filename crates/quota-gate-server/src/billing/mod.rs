//! Billing: levels that follow the subscriptions of a billing system.

pub(crate) mod subscription;

pub use self::subscription::Billing;
