//! Reads what Stripe reports when a payment is taken back: a charge with its refunds, a refund, or a dispute
//! (<https://docs.stripe.com/api/charges/object>, <https://docs.stripe.com/api/refunds/object>,
//! <https://docs.stripe.com/api/disputes/object>).

use serde::Deserialize;
use serde_json::Value;

use super::reference::Reference;
use crate::http::answers::problem::{Code, Problem};
use quota_gate::domain::purchase::Refund;

#[derive(Deserialize)]
struct TakenBack {
    #[serde(default)]
    payment_intent: Option<Reference>,
    #[serde(default)]
    amount: Option<i64>,
    #[serde(default)]
    amount_refunded: Option<i64>,
    #[serde(default)]
    status: Option<String>,
}

/// Whether events of this kind report that a payment was taken back.
pub(super) fn is_about(kind: &str) -> bool {
    matches!(
        kind,
        "charge.refunded" | "refund.created" | "refund.updated" | "charge.refund.updated" | "charge.dispute.created"
    )
}

/// Reads an event; none if it names no payment, or its refund has failed.
pub(super) fn read(event: &str, kind: &str, object: &Value) -> Result<Option<Refund>, Problem> {
    let read = TakenBack::deserialize(object);
    let read = read.map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()))?;
    let Some(payment) = read.payment_intent.map(Reference::into_id) else { return Ok(None) };
    let refund = |amount, refunded, disputed| Refund { event: event.to_owned(), payment, amount, refunded, disputed };
    Ok(match kind {
        "charge.dispute.created" => Some(refund(None, 0, true)),
        "charge.refunded" => Some(refund(read.amount, read.amount_refunded.unwrap_or(0), false)),
        // Of a refund, only its own amount is known.
        _ if matches!(read.status.as_deref(), Some("failed" | "canceled")) => None,
        _ => Some(refund(None, read.amount.unwrap_or(0), false)),
    })
}
