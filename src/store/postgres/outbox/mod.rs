//! Items that wait for delivery to another system.

pub(in crate::store::postgres) mod dual_writes;
pub(in crate::store::postgres) mod notifications;
