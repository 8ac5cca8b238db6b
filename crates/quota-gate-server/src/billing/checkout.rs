//! Reads a Stripe checkout session (<https://docs.stripe.com/api/checkout/sessions/object>): whose packs were bought,
//! and by which payment.
//!
//! Stripe's events do not contain the line items of a session, so the session's metadata names the pack. Line items
//! count where they are present.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{
    packs::{Pack, Packs},
    reference::Reference,
};
use crate::http::answers::problem::{Code, Problem};
use quota_gate::domain::{new_grant::NewGrant, purchase::Purchase, user_id::UserId};

#[derive(Deserialize)]
struct Session {
    id: String,
    mode: String,
    payment_status: String,
    created: i64,
    #[serde(default)]
    payment_intent: Option<Reference>,
    #[serde(default)]
    amount_total: Option<i64>,
    #[serde(default)]
    client_reference_id: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    line_items: Option<LineItems>,
}

#[derive(Deserialize)]
struct LineItems {
    data: Vec<LineItem>,
}

#[derive(Deserialize)]
struct LineItem {
    id: String,
    #[serde(default)]
    quantity: Option<i64>,
    price: Price,
}

#[derive(Deserialize)]
struct Price {
    id: String,
    #[serde(default)]
    product: Option<Reference>,
    #[serde(default)]
    lookup_key: Option<String>,
}

/// Keys of a session's metadata.
#[derive(Debug, Clone)]
pub(super) struct MetadataKeys {
    pub(super) user: String,
    pub(super) pack: String,
}

/// A pack of a session: its place in the session, how many times, and what it is.
struct Bought {
    place: String,
    quantity: i64,
    pack: Pack,
}

/// Reads the packs of a paid session; none if it is not paid (yet), or is not about packs.
pub(super) fn read(object: &Value, packs: &Packs, keys: &MetadataKeys) -> Result<Option<Purchase>, Problem> {
    let session = Session::deserialize(object).map_err(|error| invalid(error.to_string()))?;
    if session.mode != "payment" || !matches!(session.payment_status.as_str(), "paid" | "no_payment_required") {
        return Ok(None);
    }
    let bought = bought(&session, packs, keys)?;
    if bought.is_empty() {
        return Ok(None);
    }
    let metadata = session.metadata.as_ref();
    let user = metadata.and_then(|metadata| metadata.get(&keys.user)).or(session.client_reference_id.as_ref());
    let user = user.ok_or_else(|| {
        invalid(format!("the session names no user: set {} in its metadata, or client_reference_id", keys.user))
    })?;
    let user = UserId::parse(user)?;
    let at = DateTime::from_timestamp(session.created, 0).ok_or_else(|| invalid("created is not a valid time"))?;
    let grants = bought.iter().map(|bought| grant(&session.id, &user, at, bought)).collect::<Result<_, _>>()?;
    Ok(Some(Purchase {
        checkout: session.id,
        payment: session.payment_intent.map(Reference::into_id),
        amount: session.amount_total,
        grants,
    }))
}

fn bought(session: &Session, packs: &Packs, keys: &MetadataKeys) -> Result<Vec<Bought>, Problem> {
    if let Some(lines) = &session.line_items {
        // Other goods of the shop are no packs.
        let of_line = |line: &LineItem| {
            let product = line.price.product.as_ref().map(Reference::id);
            let items: Vec<&str> = [Some(line.price.id.as_str()), product, line.price.lookup_key.as_deref()]
                .into_iter()
                .flatten()
                .collect();
            let (_, pack) = packs.find(&items)?;
            Some(Bought { place: line.id.clone(), quantity: line.quantity.unwrap_or(1), pack })
        };
        return Ok(lines.data.iter().filter_map(of_line).collect());
    }
    let Some(item) = session.metadata.as_ref().and_then(|metadata| metadata.get(&keys.pack)) else {
        return Ok(Vec::new());
    };
    // The user has paid and would get nothing.
    let (_, pack) = packs.find(&[item]).ok_or_else(|| invalid(format!("{item} is not in [billing.packs]")))?;
    Ok(vec![Bought { place: item.clone(), quantity: 1, pack }])
}

fn grant(session: &str, user: &UserId, at: DateTime<Utc>, bought: &Bought) -> Result<NewGrant, Problem> {
    let Bought { place, quantity, pack } = bought;
    Ok(pack.grant(user, at, *quantity, &format!("{session}/{place}"))?)
}

fn invalid(rule: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidRequest, rule)
}
