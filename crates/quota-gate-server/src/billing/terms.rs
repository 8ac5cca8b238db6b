//! Reads a Stripe subscription (<https://docs.stripe.com/api/subscriptions/object>): whose it is, what is paid for, and
//! which part of its life it is in.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::http::answers::problem::{Code, Problem};
use quota_gate::domain::{
    InvalidInput,
    subscription::{PaidTime, Stage, Terms},
    user_id::UserId,
};

/// Statuses that may count as paid. In the others, nothing was paid yet (`incomplete`), or the subscription has ended.
const STATUSES: [&str; 5] = ["active", "trialing", "past_due", "unpaid", "paused"];
/// What Stripe does with the invoices of a subscription whose collection is paused.
const PAUSES: [&str; 3] = ["keep_as_draft", "mark_uncollectible", "void"];

/// Settings to read a subscription.
#[derive(Debug, Clone)]
pub struct TermsReader {
    cycle: Cycle,
    user_key: String,
    paid_statuses: Vec<String>,
    paid_pauses: Vec<String>,
}

/// When the periods of subscribers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cycle {
    /// On the first of each month.
    #[default]
    Calendar,
    /// On the day of the subscription's payments.
    Subscription,
}

/// A subscription at one time.
pub(super) struct ReadSubscription {
    pub(super) subscription: String,
    pub(super) stage: Stage,
    pub(super) terms: Terms,
    pub(super) paid_time: Option<PaidTime>,
}

#[derive(Deserialize)]
struct Subscription {
    id: String,
    status: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    items: Items,
    #[serde(default)]
    pause_collection: Option<PauseCollection>,
    #[serde(default)]
    billing_cycle_anchor: Option<i64>,
    // Since the API version 2025-03-31, only the items have them.
    #[serde(flatten)]
    period: CurrentPeriod,
}

/// The time that is paid for.
#[derive(Deserialize, Default)]
struct CurrentPeriod {
    #[serde(default, rename = "current_period_start")]
    start: Option<i64>,
    #[serde(default, rename = "current_period_end")]
    end: Option<i64>,
}

#[derive(Deserialize)]
struct PauseCollection {
    #[serde(default)]
    behavior: String,
}

#[derive(Deserialize)]
struct Items {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    price: Price,
    #[serde(flatten)]
    period: CurrentPeriod,
}

#[derive(Deserialize)]
struct Price {
    id: String,
    product: Option<String>,
}

impl TermsReader {
    /// Reads subscriptions that name the user under `user_key` in their metadata, and what they say of the user's
    /// periods if `cycle` says so. They pay for a level in one of
    /// `paid_statuses`, and while their collection is paused, only with a behavior of `paid_pauses`.
    ///
    /// # Errors
    /// If a status or a behavior is unknown, or cannot count as paid.
    pub fn new(
        cycle: Cycle,
        user_key: String,
        paid_statuses: Vec<String>,
        paid_pauses: Vec<String>,
    ) -> Result<Self, InvalidInput> {
        known("billing.paid_statuses", &paid_statuses, &STATUSES)?;
        known("billing.paid_pauses", &paid_pauses, &PAUSES)?;
        Ok(Self { cycle, user_key, paid_statuses, paid_pauses })
    }

    /// Key under which metadata name the user.
    pub(super) fn user_key(&self) -> &str {
        &self.user_key
    }

    /// Reads the subscription of an event.
    pub(super) fn read(&self, kind: &str, object: &Value) -> Result<ReadSubscription, Problem> {
        let invalid = |rule: String| Problem::new(Code::InvalidRequest, rule);
        let subscription = Subscription::deserialize(object).map_err(|error| invalid(error.to_string()))?;
        let user = subscription.metadata.get(&self.user_key);
        let user = user.ok_or_else(|| invalid(format!("the subscription's metadata has no {}", self.user_key)))?;
        let user = UserId::parse(user)?;
        let stage = match (subscription.status.as_str(), kind) {
            ("canceled" | "incomplete_expired", _) | (_, "customer.subscription.deleted") => Stage::Ended,
            ("incomplete", _) => Stage::Incomplete,
            (_, "customer.subscription.created") => Stage::Created,
            _ => Stage::Running,
        };
        let is_paid = matches!(stage, Stage::Created | Stage::Running)
            && self.paid_statuses.contains(&subscription.status)
            && subscription.pause_collection.as_ref().is_none_or(|pause| self.paid_pauses.contains(&pause.behavior));
        let paid_time = (self.cycle == Cycle::Subscription).then(|| subscription.paid_time()).flatten();
        let items = subscription.items.data.into_iter().flat_map(|item| [Some(item.price.id), item.price.product]);
        let paid_items = is_paid.then(|| items.flatten().collect());
        Ok(ReadSubscription { subscription: subscription.id, stage, terms: Terms { user, paid_items }, paid_time })
    }
}

impl Subscription {
    /// The time that is paid for. Items with different intervals have different ones: the latest start and the earliest
    /// end count.
    fn paid_time(&self) -> Option<PaidTime> {
        let periods = || std::iter::once(&self.period).chain(self.items.data.iter().map(|item| &item.period));
        let at = |seconds: i64| DateTime::from_timestamp(seconds, 0);
        let starts_at = at(periods().filter_map(|period| period.start).max()?)?;
        let ends_at = at(periods().filter_map(|period| period.end).min()?)?;
        let anchored_at = self.billing_cycle_anchor.and_then(at).unwrap_or(starts_at);
        Some(PaidTime { starts_at, ends_at, anchored_at })
    }
}

/// The object as it was before a change. Of the metadata, only the changed keys are given.
pub(super) fn before(object: &Value, previous: Map<String, Value>) -> Value {
    let mut before = object.clone();
    for (member, value) in previous {
        match (before.get_mut(&member), value) {
            (Some(Value::Object(metadata)), Value::Object(changed)) if member == "metadata" => metadata.extend(changed),
            (_, value) => before[member] = value,
        }
    }
    before
}

fn known(field: &'static str, values: &[String], known: &[&str]) -> Result<(), InvalidInput> {
    match values.iter().find(|value| !known.contains(&value.as_str())) {
        Some(value) => Err(InvalidInput { field, rule: format!("{value} is not one of {}", known.join(", ")) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_statuses_and_pauses_that_stripe_has_are_accepted() {
        let reader = |status: &str, pause: &str| {
            TermsReader::new(Cycle::default(), "user".into(), vec![status.into()], vec![pause.into()])
        };
        assert!(reader("past_due", "keep_as_draft").is_ok());
        let error = reader("canceled", "void").unwrap_err().to_string();
        assert_eq!(error, "billing.paid_statuses: canceled is not one of active, trialing, past_due, unpaid, paused");
        assert!(reader("active", "draft").is_err());
    }

    #[test]
    fn the_object_before_a_change_has_its_previous_members() {
        let object = json!({"status": "active", "metadata": {"user": "bob", "plan": "x"}});
        let previous = json!({"status": "incomplete", "metadata": {"user": "ann"}});
        let Value::Object(previous) = previous else { unreachable!() };
        assert_eq!(
            before(&object, previous),
            json!({"status": "incomplete", "metadata": {"user": "ann", "plan": "x"}})
        );
    }
}
