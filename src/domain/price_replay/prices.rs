//! Proposed prices of models: AP for a message, or AP for a million tokens.

use std::collections::{BTreeMap, HashMap};

use super::{LoggedMessage, LoggedTokens};
use crate::domain::{
    InvalidInput,
    ap::Ap,
    model_costs::{ModelCosts, Unlisted},
};

/// Models whose price is remembered. Clients write the names, so there may be any number.
const REMEMBERED_MAX: usize = 10_000;

/// What a message to a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Price {
    /// AP for a message.
    Flat(u32),
    /// AP for its tokens.
    Tokens(TokenPrice),
}

/// AP for a million tokens, in billionths of an AP, so sums are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenPrice {
    output: u64,
    input: u64,
    cached_input: u64,
    minimum: u32,
}

/// Proposed prices, by model name or pattern.
#[derive(Debug, Clone)]
pub struct Prices {
    /// All prices. The rules for names are those of the configuration: a model "costs" its place here, plus 1.
    ascending: Vec<Price>,
    places: ModelCosts,
    remembered: HashMap<Box<str>, Option<Price>>,
}

impl TokenPrice {
    /// Creates a price from AP for a million tokens, and the least AP for a message.
    ///
    /// # Errors
    /// If a price is not 0 to 1,000,000,000 with at most nine decimal places, or the minimum is above 1,000,000.
    pub fn new(input: f64, cached_input: Option<f64>, output: f64, minimum: u32) -> Result<Self, InvalidInput> {
        if minimum > Ap::COST_MAX {
            return Err(InvalidInput::new("minimum", format!("must be 0 to {}, not {minimum}", Ap::COST_MAX)));
        }
        Ok(Self {
            input: parts("input", input)?,
            cached_input: parts("cached_input", cached_input.unwrap_or(input))?,
            output: parts("output", output)?,
            minimum,
        })
    }

    /// Cost of a message: the exact sum, rounded up once.
    #[must_use]
    pub fn of(&self, tokens: LoggedTokens) -> u32 {
        let each = [(self.input, tokens.input), (self.cached_input, tokens.cached_input), (self.output, tokens.output)];
        let sum: u128 = each.iter().map(|(price, tokens)| u128::from(*price) * u128::from(*tokens)).sum();
        let ap = u32::try_from(sum.div_ceil(1_000_000_000_000_000)).unwrap_or(u32::MAX);
        ap.max(self.minimum).min(Ap::COST_MAX)
    }
}

impl Prices {
    /// Creates prices, which must include `default`. Names and patterns mean what they mean in the configuration.
    ///
    /// # Errors
    /// If a price is above 1,000,000, two names differ only in case or surrounding white space, or `default` is
    /// missing.
    pub fn new(given: &BTreeMap<String, Price>, unlisted: Unlisted) -> Result<Self, InvalidInput> {
        for (name, price) in given {
            if let Price::Flat(ap) = price
                && *ap > Ap::COST_MAX
            {
                return Err(InvalidInput::new("models", format!("{name}: must be 0 to {}, not {ap}", Ap::COST_MAX)));
            }
        }
        let mut ascending: Vec<Price> = given.values().copied().collect();
        ascending.sort_unstable();
        ascending.dedup();
        let place = |price: &Price| ascending.binary_search(price).map_or(0, |place| place + 1);
        let places: BTreeMap<String, u32> =
            given.iter().map(|(name, price)| (name.clone(), u32::try_from(place(price)).unwrap_or(0))).collect();
        let places = ModelCosts::new(&places)?.unlisted(unlisted);
        Ok(Self { ascending, places, remembered: HashMap::new() })
    }

    /// Price of a message to a model; none if it is refused. A message whose model is unknown has the default.
    pub(super) fn of(&mut self, message: &LoggedMessage<'_>) -> Option<Price> {
        if let Some(price) = self.remembered.get(message.model) {
            return *price;
        }
        let model = Some(message.model).filter(|model| !model.is_empty());
        let place = self.places.of(model).ok();
        let price = place.and_then(|place| self.ascending.get(place.get() as usize - 1)).copied();
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(message.model.into(), price);
        }
        price
    }
}

/// Decimal places of a price.
const DECIMALS: usize = 9;
/// Maximum price.
const PRICE_MAX: f64 = 1e9;

/// Parses a price as billionths. The shortest text of a float is the decimal that was written.
fn parts(field: &'static str, ap: f64) -> Result<u64, InvalidInput> {
    let wrong = || {
        let rule = format!("must be 0 to {PRICE_MAX} with at most {DECIMALS} decimal places, not {ap}");
        InvalidInput { field, rule }
    };
    if !(0.0..=PRICE_MAX).contains(&ap) {
        return Err(wrong());
    }
    let text = ap.to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    if decimals.len() > DECIMALS {
        return Err(wrong());
    }
    format!("{whole}{decimals:0<DECIMALS$}").parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(model: &str) -> LoggedMessage<'_> {
        let tokens = LoggedTokens::default();
        LoggedMessage { user: "u", level: "free", model, at_ms: 0, period: 202_611, ap: 1, overage: 0, tokens }
    }

    fn prices(given: &[(&str, Price)], unlisted: Unlisted) -> Result<Prices, InvalidInput> {
        Prices::new(&given.iter().map(|(name, price)| ((*name).to_owned(), *price)).collect(), unlisted)
    }

    #[test]
    fn a_price_by_tokens_is_exact_and_rounded_up_once() {
        let price = TokenPrice::new(2.5, Some(0.1), 10.0, 1).unwrap();
        for (input, cached_input, output, ap) in [
            (0, 0, 0, 1),
            (1, 0, 0, 1),
            (1_000_000, 0, 0, 3),
            (2_000_000, 0, 0, 5),
            (0, 10_000_000, 0, 1),
            (0, 10_000_001, 0, 2),
            (400_000, 0, 100_000, 2),
            (400_000, 1, 100_000, 3),
            (u32::MAX, u32::MAX, u32::MAX, 54_117),
        ] {
            let tokens = LoggedTokens { input, cached_input, output, is_total: false };
            assert_eq!(price.of(tokens), ap, "{tokens:?}");
        }
        assert_eq!(TokenPrice::new(1.0, None, 0.0, 0).unwrap().of(LoggedTokens::total(5_000)), 0);
        let most = TokenPrice::new(1e9, None, 1e9, 0).unwrap();
        assert_eq!(most.of(LoggedTokens::total(u32::MAX)), Ap::COST_MAX, "as much as a message may cost");
    }

    #[test]
    fn decimals_are_read_as_written() {
        for (ap, billionths) in
            [(0.1, 100_000_000), (0.000_000_001, 1), (2.0, 2_000_000_000), (1e9, 1_000_000_000_000_000_000)]
        {
            assert_eq!(parts("input", ap).unwrap(), billionths, "{ap}");
        }
        for wrong in [-0.1, 0.000_000_000_1, f64::NAN, f64::INFINITY, 1_000_000_001.0] {
            assert!(parts("input", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_mean_what_they_mean_in_the_configuration() {
        let tokens = Price::Tokens(TokenPrice::new(1.0, None, 2.0, 1).unwrap());
        let given = [("default", Price::Flat(1)), ("gpt-4o*", tokens), ("free-*", Price::Flat(0))];
        let mut all = prices(&given, Unlisted::Default).unwrap();
        for (model, price) in [
            ("", Price::Flat(1)),
            ("o1", Price::Flat(1)),
            ("openai/GPT-4o-mini", tokens),
            ("free-small", Price::Flat(0)),
            ("free-small", Price::Flat(0)),
        ] {
            assert_eq!(all.of(&message(model)), Some(price), "{model}");
        }
        let mut listed = prices(&given, Unlisted::Refuse).unwrap();
        assert_eq!(listed.of(&message("o1")), None);
        assert_eq!(listed.of(&message("")), Some(Price::Flat(1)));
        assert!(prices(&given[1..], Unlisted::Default).is_err(), "without default");
        let dear = [("default", Price::Flat(1)), ("a", Price::Flat(1_000_001))];
        assert!(prices(&dear, Unlisted::Default).unwrap_err().rule.contains("a: "));
    }
}
