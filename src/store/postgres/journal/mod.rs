//! The journal in Postgres: usage events, each written exactly once, and their sums.

pub(in crate::store::postgres) mod adjustments;
pub(in crate::store::postgres) mod audit;
pub(in crate::store::postgres) mod chat_usage_logs;
mod copied_rows;
pub(in crate::store::postgres) mod dead_letters;
pub(in crate::store::postgres) mod drain;
pub(in crate::store::postgres) mod earlier_charges;
pub(in crate::store::postgres) mod flush;
pub(in crate::store::postgres) mod flush_watermarks;
pub(in crate::store::postgres) mod grant_charges;
pub(in crate::store::postgres) mod grant_drift;
pub(in crate::store::postgres) mod logged_messages;
pub(in crate::store::postgres) mod logged_windows;
pub(in crate::store::postgres) mod meter_drift;
mod meter_totals;
pub(in crate::store::postgres) mod received_grants;
pub(in crate::store::postgres) mod retention;
mod stored_event;
mod stored_receipt;
pub(in crate::store::postgres) mod totals;
pub(in crate::store::postgres) mod transfer_drift;
pub(in crate::store::postgres) mod usage_days;
pub(in crate::store::postgres) mod usage_log_partitions;
