//! The installation: its settings, tables and server.

pub(in crate::store::postgres) mod advisory_locks;
pub(in crate::store::postgres) mod gate_settings;
pub(in crate::store::postgres) mod membership_levels;
pub(in crate::store::postgres) mod migrate;
mod reworded_migrations;
pub(in crate::store::postgres) mod rollout_changes;
pub(in crate::store::postgres) mod server_info;
