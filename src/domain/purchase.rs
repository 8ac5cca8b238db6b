//! Packs that are bought, and payments that are taken back, as reported by a billing system.
//!
//! Events are repeated, and arrive in any order: a refund may arrive before its purchase. What is known of a payment is
//! the largest of each number that was reported, so the order of delivery does not matter.

use super::new_grant::NewGrant;

/// What was bought in one checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// Id of the checkout.
    pub checkout: String,
    /// Id of the payment, if something was paid.
    pub payment: Option<String>,
    /// Amount of the payment, in the smallest unit of its currency.
    pub amount: Option<i64>,
    /// The packs, all of one user. Their external ids say which part of the checkout they are.
    pub grants: Vec<NewGrant>,
}

/// A report that a payment was taken back, in part or entirely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Id of the event.
    pub event: String,
    /// Id of the payment.
    pub payment: String,
    /// Amount of the payment, if the event says so.
    pub amount: Option<i64>,
    /// What was paid back so far.
    pub refunded: i64,
    /// Whether the payer disputes the payment.
    pub disputed: bool,
}

/// Whether a payment was taken back entirely: then what is left of its packs is voided. What a part of a payment is
/// worth in AP is for people to decide.
#[must_use]
pub fn is_taken_back(amount: Option<i64>, refunded: i64, disputed: bool) -> bool {
    disputed || (refunded > 0 && amount.is_some_and(|amount| refunded >= amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_is_taken_back_by_a_dispute_or_a_refund_of_all() {
        assert!(is_taken_back(Some(500), 500, false) && is_taken_back(None, 0, true));
        assert!(!is_taken_back(Some(500), 499, false), "a part");
        assert!(!is_taken_back(None, 500, false), "the amount is not known yet");
        assert!(!is_taken_back(Some(0), 0, false), "nothing was paid");
    }
}
