//! Proposed prices of models, with the rules of the configuration.

use std::collections::HashMap;

use super::LoggedMessage;
use crate::domain::{
    InvalidInput,
    model_costs::{ModelCosts, ModelPrice, Unlisted},
};

/// Models whose price is remembered. Clients write the names, so there may be any number.
const REMEMBERED_MAX: usize = 10_000;

/// Proposed prices, by model name or pattern.
#[derive(Debug, Clone)]
pub struct Prices {
    costs: ModelCosts,
    remembered: HashMap<Box<str>, Option<ModelPrice>>,
}

impl Prices {
    /// Creates prices, which must include `default`. Names and patterns mean what they mean in the configuration.
    ///
    /// # Errors
    /// If two names differ only in case or surrounding white space, or `default` is missing.
    pub fn new(
        given: impl IntoIterator<Item = (String, ModelPrice)>,
        unlisted: Unlisted,
    ) -> Result<Self, InvalidInput> {
        Ok(Self { costs: ModelCosts::by_price(given)?.unlisted(unlisted), remembered: HashMap::new() })
    }

    /// Price of a message to a model; none if it is refused. A message whose model is unknown has the default.
    pub(super) fn of(&mut self, message: &LoggedMessage<'_>) -> Option<ModelPrice> {
        if let Some(price) = self.remembered.get(message.model) {
            return *price;
        }
        let price = self.costs.of(Some(message.model).filter(|model| !model.is_empty())).ok();
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(message.model.into(), price);
        }
        price
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ap::Ap, price_replay::LoggedTokens, token_prices::TokenPrices};

    fn message(model: &str) -> LoggedMessage<'_> {
        let tokens = LoggedTokens::default();
        LoggedMessage {
            user: "u",
            level: "free",
            model,
            at_ms: 0,
            period: 202_611,
            ap: 1,
            granted: 0,
            overage: 0,
            tokens,
        }
    }

    fn prices(given: &[(&str, ModelPrice)], unlisted: Unlisted) -> Result<Prices, InvalidInput> {
        Prices::new(given.iter().map(|(name, price)| ((*name).to_owned(), *price)), unlisted)
    }

    #[test]
    fn names_mean_what_they_mean_in_the_configuration() {
        let price = |text: &str| text.parse().unwrap();
        let tokens =
            TokenPrices { input: price("1"), cached_input: price("1"), output: price("2"), minimum: Ap::ONE }.into();
        let flat = |ap| ModelPrice::Flat(Ap::new(ap));
        let given = [("default", flat(1)), ("gpt-4o*", tokens), ("free-*", flat(0))];
        let mut all = prices(&given, Unlisted::Default).unwrap();
        for (model, price) in [
            ("", flat(1)),
            ("o1", flat(1)),
            ("openai/GPT-4o-mini", tokens),
            ("free-small", flat(0)),
            ("free-small", flat(0)),
        ] {
            assert_eq!(all.of(&message(model)), Some(price), "{model}");
        }
        let mut listed = prices(&given, Unlisted::Refuse).unwrap();
        assert_eq!(listed.of(&message("o1")), None);
        assert_eq!(listed.of(&message("")), Some(flat(1)));
        assert!(prices(&given[1..], Unlisted::Default).is_err(), "without default");
    }
}
