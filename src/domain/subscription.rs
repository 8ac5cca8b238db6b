//! Subscriptions, as reported by a billing system, and the levels that they pay for.
//!
//! Events name the second in which they happened, are repeated, and arrive in any order. The state of a subscription is
//! a function of the set of its events ([`last_of_second`]), so the order of delivery does not matter.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::{
    InvalidInput,
    calendar::{AnchorDay, Calendar, Day},
    level::{Level, LevelName, Levels},
    user_id::UserId,
};

/// Change of a subscription at one time, as reported by billing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionEvent {
    /// Id of the event, which may be delivered more than once.
    pub id: String,
    /// Id of the subscription.
    pub subscription: String,
    /// Time of the change, in seconds.
    pub at: DateTime<Utc>,
    /// Part of a subscription's life: of two events of one second, the one of the later stage counts.
    pub stage: Stage,
    /// Terms after the change.
    pub terms: Terms,
    /// Terms before the change, if the event says so.
    pub terms_before: Option<Terms>,
    /// What is paid for, if it determines when the user's periods begin.
    pub paid_time: Option<PaidTime>,
}

/// The time for which a subscription was paid last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaidTime {
    /// Start.
    pub starts_at: DateTime<Utc>,
    /// End: the next payment is due.
    pub ends_at: DateTime<Utc>,
    /// A payment whose day of the month is that of all payments, also after a shorter month.
    pub anchored_at: DateTime<Utc>,
}

/// The same as days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaidDays {
    /// First day.
    pub first: Day,
    /// Day of the next payment.
    pub end: Day,
    /// Day of the month of the payments.
    pub anchor_day: AnchorDay,
}

impl PaidTime {
    /// Returns the days.
    #[must_use]
    pub fn days(&self, calendar: Calendar) -> PaidDays {
        PaidDays {
            first: calendar.day_at(self.starts_at),
            end: calendar.day_at(self.ends_at),
            anchor_day: AnchorDay::of(calendar.day_at(self.anchored_at)),
        }
    }
}

/// Part of a subscription's life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The first payment is not made.
    Incomplete = 0,
    /// The first event of a subscription that is paid for, or is free for a while.
    Created = 1,
    /// Any change after that, also one after which nothing is paid for: a payment may follow.
    Running = 2,
    /// The subscription has ended. It cannot begin again.
    Ended = 3,
}

/// Who has a subscription, and what is paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The subscriber.
    pub user: UserId,
    /// Ids of the prices and products that are paid for now; `None` if nothing is.
    pub paid_items: Option<Vec<String>>,
}

/// Who has a subscription, and the level that it pays for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// The subscriber.
    pub user: UserId,
    /// The level; `None` if nothing is paid for.
    pub level: Option<LevelName>,
}

/// An event, for its order among those of the same second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedEvent {
    /// Number of the event's [`Stage`].
    pub stage: i16,
    /// State after the event, as [`SubscriptionState::text`] gives it.
    pub after: String,
    /// State before the event, if known.
    pub before: Option<String>,
}

/// The level that each price or product pays for.
#[derive(Debug, Clone, Default)]
pub struct PriceLevels(BTreeMap<String, LevelName>);

impl Terms {
    /// Returns the state that these terms give: the highest level of what is paid for.
    ///
    /// # Errors
    /// If none of the paid items is configured, or their levels are unknown: the user would pay and get nothing.
    pub fn state(&self, prices: &PriceLevels, levels: &Levels) -> Result<SubscriptionState, InvalidInput> {
        let level = match &self.paid_items {
            None => None,
            Some(items) => {
                let names = prices.of(items)?;
                let level = levels.highest_of(names.iter().map(|name| name.as_str()));
                Some(level.ok_or_else(|| unknown_level(names[0]))?.name.clone())
            }
        };
        Ok(SubscriptionState { user: self.user.clone(), level })
    }
}

impl SubscriptionState {
    /// The state as text without ambiguity, for comparison.
    #[must_use]
    pub fn text(&self) -> String {
        Self::text_of(self.user.as_str(), self.level.as_ref().map(LevelName::as_str))
    }

    /// Like [`text`](Self::text), for stored values.
    #[must_use]
    pub fn text_of(user: &str, level: Option<&str>) -> String {
        // Neither a user id nor the name of a level contains a space.
        format!("{user} {}", level.unwrap_or_default())
    }
}

/// Returns the index of the last of a subscription's events of one second, which are given in the order of their
/// receipt, whatever that is. `prior` is the state before that second, if known.
///
/// Only events of the latest stage count. Each leads from the state before it to the one after it, so together they are
/// a path: the state that is entered more often than it is left is the last one. If all are left as often, the path
/// ends where it began. If the events do not say enough, the one received last counts.
#[must_use]
pub fn last_of_second(events: &[OrderedEvent], prior: Option<&str>) -> Option<usize> {
    let stage = events.iter().map(|event| event.stage).max()?;
    let of_stage = || events.iter().enumerate().filter(|(_, event)| event.stage == stage).rev();
    let mut balance: HashMap<&str, i32> = HashMap::new();
    for (_, event) in of_stage() {
        *balance.entry(&event.after).or_default() += 1;
        if let Some(before) = &event.before {
            *balance.entry(before).or_default() -= 1;
        }
    }
    let entered = of_stage().find(|(_, event)| balance[event.after.as_str()] > 0);
    let returned = || of_stage().find(|(_, event)| prior == Some(event.after.as_str()));
    entered.or_else(returned).or_else(|| of_stage().next()).map(|(index, _)| index)
}

impl PriceLevels {
    /// Creates the mapping from the configuration.
    ///
    /// # Errors
    /// If the name of a level is invalid.
    pub fn new(levels: &BTreeMap<String, String>) -> Result<Self, InvalidInput> {
        levels
            .iter()
            .map(|(item, level)| Ok((item.clone(), LevelName::parse(level)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The levels that these items pay for.
    ///
    /// # Errors
    /// If none of the items is configured: the user would pay and get nothing.
    pub fn of(&self, items: &[String]) -> Result<Vec<&LevelName>, InvalidInput> {
        let levels: Vec<&LevelName> = items.iter().filter_map(|item| self.0.get(item)).collect();
        if levels.is_empty() {
            let rule = format!("none of {} is in [billing.levels]", items.join(", "));
            return Err(InvalidInput::new("items", rule));
        }
        Ok(levels)
    }
}

impl Levels {
    /// The highest of the levels with these names; unknown names do not count.
    #[must_use]
    pub fn highest_of<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<&Level> {
        names.filter_map(|name| self.named(name)).max_by_key(|level| (level.quota, level.code))
    }
}

fn unknown_level(name: &LevelName) -> InvalidInput {
    InvalidInput { field: "billing.levels", rule: format!("{name} is not a level of this installation") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unconfigured_items_and_invalid_level_names_are_refused() {
        let levels = PriceLevels::new(&[("price_1".to_owned(), "plus".to_owned())].into()).unwrap();
        assert_eq!(levels.of(&["prod_9".into(), "price_1".into()]).unwrap()[0].as_str(), "plus");
        assert!(levels.of(&["price_2".into()]).unwrap_err().to_string().contains("price_2"));
        assert!(PriceLevels::new(&[("price_1".to_owned(), "No Level".to_owned())].into()).is_err());
    }

    fn event(stage: Stage, before: Option<&str>, after: &str) -> OrderedEvent {
        OrderedEvent { stage: stage as i16, after: after.into(), before: before.map(Into::into) }
    }

    /// The state after these events, in each order of receipt.
    fn last_states(events: &[OrderedEvent], prior: Option<&str>) -> Vec<String> {
        fn orders(rest: &[OrderedEvent]) -> Vec<Vec<OrderedEvent>> {
            let Some((first, others)) = rest.split_first() else { return vec![Vec::new()] };
            let insert = |order: Vec<OrderedEvent>| {
                (0..=order.len()).map(move |at| [&order[..at], std::slice::from_ref(first), &order[at..]].concat())
            };
            orders(others).into_iter().flat_map(insert).collect()
        }
        let mut states: Vec<String> = orders(events)
            .into_iter()
            .map(|order| order[last_of_second(&order, prior).unwrap()].after.clone())
            .collect();
        states.dedup();
        states
    }

    #[test]
    fn events_of_one_second_have_the_same_result_in_every_order() {
        let updated = |before: &str, after: &str| event(Stage::Running, Some(before), after);
        // The first payment, an end, a creation.
        let paid = [event(Stage::Incomplete, None, "-"), updated("-", "plus")];
        assert_eq!(last_states(&paid, None), ["plus"]);
        let ended = [updated("plus", "pro"), event(Stage::Ended, None, "-"), updated("pro", "basic")];
        assert_eq!(last_states(&ended, None), ["-"]);
        let created = [event(Stage::Created, None, "plus"), event(Stage::Running, None, "pro")];
        assert_eq!(last_states(&created, None), ["pro"]);
        // Changes that follow each other, through a state twice, and without effect.
        assert_eq!(
            last_states(&[updated("-", "plus"), updated("plus", "pro"), updated("pro", "basic")], None),
            ["basic"]
        );
        assert_eq!(
            last_states(&[updated("-", "plus"), updated("plus", "pro"), updated("pro", "plus")], None),
            ["plus"]
        );
        assert_eq!(last_states(&[updated("-", "plus"), updated("plus", "plus")], None), ["plus"]);
        // Back to where the second began.
        assert_eq!(last_states(&[updated("plus", "pro"), updated("pro", "plus")], Some("plus")), ["plus"]);
        assert_eq!(last_states(&[updated("plus", "pro"), updated("pro", "plus")], Some("pro")), ["pro"]);
        assert_eq!(last_of_second(&[], None), None);
    }
}
