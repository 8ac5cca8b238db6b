//! The installation: its settings, tables and server.

pub(in crate::store::postgres) mod gate_settings;
pub(in crate::store::postgres) mod gates;
pub(in crate::store::postgres) mod level_changes;
pub(in crate::store::postgres) mod membership_levels;
pub(in crate::store::postgres) mod meters;
pub(in crate::store::postgres) mod migrate;
pub(in crate::store::postgres) mod repair_lock;
mod reworded_migrations;
pub(in crate::store::postgres) mod rollout_changes;
pub(in crate::store::postgres) mod server_info;
