//! What the models cost, which of them a level may use, and which one answers when a quota is exhausted.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    InvalidInput, ap::Ap, by_model::ByModel, level::LevelName, model_name::ModelName, token_kinds::TokenKinds,
    token_prices::TokenPrices, usage::Tokens,
};

/// Prices by model name or pattern.
#[derive(Debug, Clone)]
pub struct ModelCosts {
    prices: ByModel<ModelPrice>,
    default: ModelPrice,
    unlisted: Unlisted,
    estimates: Estimates,
    when_exhausted: Option<ModelName>,
    /// The models of levels that may not use all.
    level_models: BTreeMap<LevelName, ByModel<()>>,
}

/// What a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPrice {
    /// AP for each answer; may be 0.
    Flat(Ap),
    /// AP by tokens.
    Tokens(TokenPrices),
}

/// Tokens that are assumed of a message before it is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimates {
    /// Input tokens of a request that the gate does not see.
    pub input_tokens: u32,
    /// Output tokens of an answer whose request names no maximum.
    pub output_tokens: u32,
}

/// What to do with a message to a model that has no cost of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// It costs the default.
    #[default]
    Default,
    /// It is refused.
    Refuse,
}

impl ModelCosts {
    /// Name for all models without their own cost.
    const DEFAULT: &str = "default";

    /// Creates flat costs, which must include `default`. `*` in a name stands for any text.
    ///
    /// # Errors
    /// If a cost is above 1,000,000, two names differ only in case or surrounding white space, or `default` is missing.
    pub fn new(costs: &BTreeMap<String, u32>) -> Result<Self, InvalidInput> {
        let flat = |(name, ap): (&String, &u32)| Ok((name.clone(), ModelPrice::flat(name, *ap)?));
        Self::by_price(costs.iter().map(flat).collect::<Result<Vec<_>, InvalidInput>>()?)
    }

    /// Creates costs, which must include `default`. `*` in a name stands for any text.
    ///
    /// # Errors
    /// If two names differ only in case or surrounding white space, or `default` is missing.
    pub fn by_price(prices: impl IntoIterator<Item = (String, ModelPrice)>) -> Result<Self, InvalidInput> {
        let mut prices = ByModel::new(prices, ModelPrice::rank)?;
        let missing = || InvalidInput { field: "models", rule: "default is missing".into() };
        let default = prices.take(Self::DEFAULT).ok_or_else(missing)?;
        Ok(Self {
            prices,
            default,
            unlisted: Unlisted::default(),
            estimates: Estimates::default(),
            when_exhausted: None,
            level_models: BTreeMap::new(),
        })
    }

    /// Sets what to do with messages to other models.
    #[must_use]
    pub fn unlisted(self, unlisted: Unlisted) -> Self {
        Self { unlisted, ..self }
    }

    /// Sets the tokens that are assumed.
    #[must_use]
    pub fn estimates(self, estimates: Estimates) -> Self {
        Self { estimates, ..self }
    }

    /// Sets the model that answers messages which the quota does not cover.
    #[must_use]
    pub fn when_exhausted(self, model: Option<ModelName>) -> Self {
        Self { when_exhausted: model, ..self }
    }

    /// Limits levels to these models; other levels may use all.
    ///
    /// # Errors
    /// If two names of a level differ only in case or surrounding white space.
    pub fn level_models(self, models: &BTreeMap<LevelName, Vec<String>>) -> Result<Self, InvalidInput> {
        let listed = |(level, names): (&LevelName, &Vec<String>)| {
            let names = names.iter().map(|name| (name.clone(), ()));
            let by_model = ByModel::new(names, |()| ())
                .map_err(|error| InvalidInput { field: "level_models", rule: format!("{level}: {}", error.rule) })?;
            Ok((level.clone(), by_model))
        };
        let level_models = models.iter().map(listed).collect::<Result<_, InvalidInput>>()?;
        Ok(Self { level_models, ..self })
    }

    /// Price of the model; the default without a model.
    ///
    /// # Errors
    /// If the model is not listed, and such models are refused.
    pub fn of(&self, model: Option<&str>) -> Result<ModelPrice, InvalidInput> {
        let Some(model) = model else { return Ok(self.default) };
        match self.prices.get(model) {
            Some(price) => Ok(price),
            None if self.unlisted == Unlisted::Default => Ok(self.default),
            None => Err(InvalidInput { field: "model", rule: "is not one of the models of this gate".into() }),
        }
    }

    /// The models with a flat price, by name: neither patterns nor the default.
    pub(super) fn flat(&self) -> impl Iterator<Item = (&str, Ap)> {
        self.prices.named().filter_map(|(name, price)| match price {
            ModelPrice::Flat(ap) => Some((name, ap)),
            ModelPrice::Tokens(_) => None,
        })
    }

    /// The prices by tokens of this model, if it has some.
    #[must_use]
    pub fn by_tokens(&self, model: Option<&ModelName>) -> Option<TokenPrices> {
        match self.of(Some(model?.as_str())) {
            Ok(ModelPrice::Tokens(prices)) => Some(prices),
            Ok(ModelPrice::Flat(_)) | Err(_) => None,
        }
    }

    /// Cost of a message whose request and answer the gate does not see, and its tokens if they are estimated.
    ///
    /// # Errors
    /// If the model is not listed, and such models are refused.
    pub fn unseen(&self, model: Option<&str>) -> Result<(Ap, Tokens), InvalidInput> {
        let Estimates { input_tokens, output_tokens } = self.estimates;
        Ok(match self.of(model)? {
            ModelPrice::Flat(ap) => (ap, Tokens::ZERO),
            ModelPrice::Tokens(prices) => {
                let kinds = TokenKinds::clamped(input_tokens.into(), 0, output_tokens.into()).estimated();
                (prices.cost(kinds), Tokens::of_kinds(kinds))
            }
        })
    }

    /// Output tokens of an answer whose request names no maximum.
    #[must_use]
    pub const fn output_tokens_assumed(&self) -> u32 {
        self.estimates.output_tokens
    }

    /// The model that answers messages which the quota of a user of this level does not cover.
    #[must_use]
    pub fn fallback(&self, level: &str) -> Option<&ModelName> {
        self.when_exhausted.as_ref().filter(|model| self.allows(level, model.as_str()))
    }

    /// Whether some level may not use all models.
    #[must_use]
    pub fn limits_levels(&self) -> bool {
        !self.level_models.is_empty()
    }

    /// Whether users of this level may use this model.
    #[must_use]
    pub fn allows(&self, level: &str, model: &str) -> bool {
        let listed = self.level_models.iter().find(|(name, _)| name.as_str() == level);
        listed.is_none_or(|(_, models)| models.get(model).is_some())
    }
}

impl ModelPrice {
    /// Creates the flat price of this model.
    ///
    /// # Errors
    /// If it is above 1,000,000 AP.
    pub fn flat(model: &str, ap: u32) -> Result<Self, InvalidInput> {
        let invalid = |error: InvalidInput| InvalidInput { field: "models", rule: format!("{model}: {}", error.rule) };
        Ap::price(ap.into()).map(Self::Flat).map_err(invalid)
    }

    /// The dearer of two patterns that are equally specific counts.
    fn rank(&self) -> (bool, u64) {
        match self {
            Self::Flat(ap) => (false, ap.get().into()),
            Self::Tokens(prices) => (true, prices.rank()),
        }
    }
}

impl From<TokenPrices> for ModelPrice {
    fn from(prices: TokenPrices) -> Self {
        Self::Tokens(prices)
    }
}

impl Default for Estimates {
    fn default() -> Self {
        Self { input_tokens: 1_000, output_tokens: 1_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(models: &[(&str, u32)]) -> Result<ModelCosts, InvalidInput> {
        ModelCosts::new(&models.iter().map(|(name, ap)| ((*name).to_owned(), *ap)).collect())
    }

    fn flat(price: &Result<ModelPrice, InvalidInput>) -> u32 {
        let Ok(ModelPrice::Flat(ap)) = price else { panic!("no flat price: {price:?}") };
        ap.get()
    }

    fn by_tokens() -> ModelCosts {
        let price = |text: &str| text.parse().unwrap();
        let gpt =
            TokenPrices { input: price("2500"), cached_input: price("1250"), output: price("10000"), minimum: Ap::ONE };
        let prices = [("default".to_owned(), ModelPrice::Flat(Ap::ONE)), ("gpt-4o".to_owned(), gpt.into())];
        ModelCosts::by_price(prices).unwrap()
    }

    #[test]
    fn a_model_costs_what_is_configured_and_the_default_otherwise() {
        let costs = costs(&[("default", 1), ("gpt-4o", 3)]).unwrap();
        let of = |model| flat(&costs.of(Some(model)));
        assert_eq!([of("gpt-4o"), of("gpt-4o-mini"), of(""), of("gpt-4o-2024"), of("xgpt-4o")], [3, 1, 1, 1, 1]);
        assert_eq!(flat(&costs.of(None)), 1);
    }

    #[test]
    fn spelling_does_not_change_the_price() {
        let costs = costs(&[("default", 1), ("GPT-4o", 3), ("azure/gpt-4o", 4), ("gpt-4o-2024-05-13", 5)]).unwrap();
        for (model, ap) in [
            ("GPT-4O", 3),
            (" gpt-4o\t", 3),
            ("openai/gpt-4o", 3),
            ("openrouter/openai/GPT-4o", 3),
            ("gpt-4o-2024-11-20", 3),
            ("openai/gpt-4o-20241120 ", 3),
            ("azure/gpt-4o", 4),
            ("azure/gpt-4o-2024-11-20", 4),
            ("gpt-4o-2024-05-13", 5),
        ] {
            assert_eq!(flat(&costs.of(Some(model))), ap, "{model}");
        }
    }

    #[test]
    fn most_specific_pattern_sets_the_price() {
        let costs =
            costs(&[("default", 1), ("gpt-4o*", 3), ("gpt-4o-mini*", 2), ("gpt-4o-audio", 9), ("*/claude-*-opus*", 8)]);
        let costs = costs.unwrap();
        for (model, ap) in [
            ("gpt-4o", 3),
            ("gpt-4o-2024-11-20", 3),
            ("GPT-4o-mini-2024", 2),
            ("openai/gpt-4o:nitro", 3),
            ("gpt-4o-audio", 9),
            ("gpt-4", 1),
            ("anthropic/claude-3-opus:beta", 8),
            ("claude-3-opus", 1),
        ] {
            assert_eq!(flat(&costs.of(Some(model))), ap, "{model}");
        }
    }

    #[test]
    fn a_model_may_be_free() {
        let costs = costs(&[("default", 1), ("local-*", 0)]).unwrap();
        assert_eq!(costs.of(Some("local-small")).unwrap(), ModelPrice::Flat(Ap::ZERO));
    }

    #[test]
    fn a_message_that_the_gate_does_not_see_costs_an_estimate_by_token_prices() {
        let costs = by_tokens().estimates(Estimates { input_tokens: 2_000, output_tokens: 300 });
        let (ap, tokens) = costs.unseen(Some("gpt-4o")).unwrap();
        assert_eq!(ap.get(), 8, "2000 × 0.0025 + 300 × 0.01");
        assert_eq!((tokens.get(), tokens.kinds().map(TokenKinds::is_estimated)), (2_300, Some(true)));
        assert_eq!(costs.unseen(None).unwrap(), (Ap::ONE, Tokens::ZERO));
    }

    #[test]
    fn a_level_with_a_list_has_only_the_models_of_its_list() {
        let free = (LevelName::parse("free").unwrap(), vec!["GPT-4o-mini".to_owned(), "local-*".to_owned()]);
        let costs = by_tokens().level_models(&[free].into()).unwrap();
        for (level, model, allowed) in [
            ("free", "gpt-4o-mini", true),
            ("free", "openai/gpt-4o-mini-2024-07-18", true),
            ("free", "local-large", true),
            ("free", "gpt-4o", false),
            ("free", "", false),
            ("plus", "gpt-4o", true),
        ] {
            assert_eq!(costs.allows(level, model), allowed, "{level} {model}");
        }
        assert!(costs.limits_levels() && !by_tokens().limits_levels());
        let costs = costs.when_exhausted(Some(ModelName::parse("gpt-4o").unwrap()));
        assert_eq!((costs.fallback("free"), costs.fallback("plus").is_some()), (None, true));
    }

    #[test]
    fn unlisted_models_may_be_refused() {
        let costs = costs(&[("default", 1), ("gpt-*", 3)]).unwrap().unlisted(Unlisted::Refuse);
        assert_eq!(flat(&costs.of(Some("openai/GPT-5"))), 3);
        assert!(costs.of(Some("o1")).is_err() && costs.of(Some("")).is_err());
        assert_eq!(flat(&costs.of(None)), 1);
    }

    #[test]
    fn a_missing_default_and_a_cost_above_the_maximum_are_refused() {
        assert!(costs(&[("gpt-4o", 3)]).is_err());
        let too_dear = costs(&[("default", 1), ("golden", 1_000_001)]);
        assert!(too_dear.unwrap_err().to_string().contains("golden"));
        assert!(costs(&[("default", 1), ("a", 2), ("A", 3)]).is_err());
    }
}
