//! Level changes, by an administrator or by a subscription.

pub(in crate::gate) mod change_level;
pub(in crate::gate) mod subscription;
