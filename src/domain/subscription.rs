//! Subscriptions, as reported by a billing system, and the levels that they pay for.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{InvalidInput, level::LevelName, user_id::UserId};

/// State of a subscription at one time, as reported by billing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionEvent {
    /// Id of the event, which may be delivered more than once.
    pub id: String,
    /// Id of the subscription.
    pub subscription: String,
    /// The subscriber.
    pub user: UserId,
    /// Time of the state. The latest state counts, whatever the order of delivery.
    pub at: DateTime<Utc>,
    /// Whether the subscription currently grants its level.
    pub is_live: bool,
    /// Ids of the prices and products that were bought.
    pub items: Vec<String>,
}

/// The level that each price or product pays for.
#[derive(Debug, Clone, Default)]
pub struct PriceLevels(BTreeMap<String, LevelName>);

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
}
