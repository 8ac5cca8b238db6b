//! One message: in one step (consume) or in two (reserve, then commit or release).

pub(in crate::gate) mod commit;
pub(in crate::gate) mod consume;
pub(in crate::gate) mod extend;
pub(in crate::gate) mod idempotency;
pub(in crate::gate) mod release;
pub(in crate::gate) mod reservation_id;
pub(in crate::gate) mod reserve;
pub(in crate::gate) mod settle;
