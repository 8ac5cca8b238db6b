//! Grants: makes, voids and lists them in Postgres, sends their list to Redis, and transfers AP of them there.

mod buy_packs;
mod give_grant;
mod number_grants;
mod refund_charge;
mod send_grants;
mod transfer;
mod void_grant;

pub use self::{
    give_grant::GrantGiven,
    transfer::{TransferState, Transferred},
    void_grant::GrantVoided,
};
