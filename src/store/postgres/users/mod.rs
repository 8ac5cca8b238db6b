//! Users: one row each, and what changes it other than the flusher.

pub(in crate::store::postgres) mod change_level;
pub(in crate::store::postgres) mod chat_quotas;
pub(in crate::store::postgres) mod export;
pub(in crate::store::postgres) mod foreign_users;
pub(in crate::store::postgres) mod forget;
pub(in crate::store::postgres) mod forgotten_users;
pub(in crate::store::postgres) mod grant_row;
pub(in crate::store::postgres) mod grants;
pub(in crate::store::postgres) mod import;
pub(in crate::store::postgres) mod import_grants;
pub(in crate::store::postgres) mod left_of_grants;
pub(in crate::store::postgres) mod meter_accounts;
pub(in crate::store::postgres) mod move_users;
pub(in crate::store::postgres) mod number_grants;
pub(in crate::store::postgres) mod own_quotas;
mod packs;
pub(in crate::store::postgres) mod payments;
pub(in crate::store::postgres) mod resets;
pub(in crate::store::postgres) mod roll;
mod subscription_events;
pub(in crate::store::postgres) mod subscriptions;
pub(in crate::store::postgres) mod unsynced_grants;
pub(in crate::store::postgres) mod unsynced_levels;
pub(in crate::store::postgres) mod user_changes;
pub(in crate::store::postgres) mod uuid_spellings;
