//! Grants: makes, voids and lists them in Postgres, and sends their list to Redis.

mod buy_packs;
mod give_grant;
mod refund_charge;
mod send_grants;
mod void_grant;

pub use self::{give_grant::GrantGiven, void_grant::GrantVoided};
