//! Level changes of users, by an administrator or by a subscription, and changes of the levels themselves.

pub(in crate::gate) mod apply_levels;
mod apply_meters;
pub(in crate::gate) mod change_level;
pub(in crate::gate) mod change_user;
pub(in crate::gate) mod subscription;
pub(in crate::gate) mod sync_levels;
