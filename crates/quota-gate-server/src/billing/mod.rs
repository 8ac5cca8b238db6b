//! Billing: sets users' levels by their subscriptions in a billing system.

pub(crate) mod subscription;
pub(crate) mod terms;

pub use self::{
    subscription::Billing,
    terms::{Cycle, TermsReader},
};
