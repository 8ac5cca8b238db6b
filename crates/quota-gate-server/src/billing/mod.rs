//! Billing: sets users' levels by their subscriptions in a billing system, and gives the packs that users buy.
//!
//! | file | what |
//! | --- | --- |
//! | `subscription` | receives and verifies events |
//! | `terms` | reads a subscription: whose it is, and what is paid for |
//! | `packs`, `checkout` | what packs give; reads a checkout: who has bought which packs |
//! | `refund` | reads refunds and disputes |
//! | `reference` | references between objects |

pub(crate) mod checkout;
pub(crate) mod packs;
pub(crate) mod reference;
pub(crate) mod refund;
pub(crate) mod subscription;
pub(crate) mod terms;

pub use self::{
    packs::{PackOptions, Packs},
    subscription::{Billing, PackRules},
    terms::{Cycle, TermsReader},
};
