//! Subscriptions, as a billing system tells of them, and the levels that they pay for.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{InvalidInput, level::LevelName, user_id::UserId};

/// What billing says of a subscription at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionEvent {
    /// The event's id: it may come more than once.
    pub id: String,
    /// Which subscription.
    pub subscription: String,
    /// Whose.
    pub user: UserId,
    /// When it was so. Of two events, the later one counts, whichever comes first.
    pub at: DateTime<Utc>,
    /// It gives its level now.
    pub is_live: bool,
    /// What was bought: ids of prices and products.
    pub items: Vec<String>,
}

/// Which price or product pays for which level.
#[derive(Debug, Clone, Default)]
pub struct PriceLevels(BTreeMap<String, LevelName>);

impl PriceLevels {
    /// As configured.
    ///
    /// # Errors
    /// If a level's name is none.
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
    /// If none of them is configured: somebody would pay and get nothing.
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
    fn what_nobody_has_configured_is_no_level() {
        let levels = PriceLevels::new(&[("price_1".to_owned(), "plus".to_owned())].into()).unwrap();
        assert_eq!(levels.of(&["prod_9".into(), "price_1".into()]).unwrap()[0].as_str(), "plus");
        assert!(levels.of(&["price_2".into()]).unwrap_err().to_string().contains("price_2"));
        assert!(PriceLevels::new(&[("price_1".to_owned(), "No Level".to_owned())].into()).is_err());
    }
}
