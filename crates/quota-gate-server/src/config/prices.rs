//! A model's price in `[models]`: AP for each answer, or a table with AP for a million tokens.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use quota_gate::domain::{
    InvalidInput,
    ap::Ap,
    model_costs::ModelPrice,
    token_prices::{TokenPrice, TokenPrices},
};

/// Digits that a number keeps exactly. A longer decimal is to be written as a string.
const EXACT_DIGITS: usize = 15;

/// A model's price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Price {
    /// AP for each answer.
    Flat(u32),
    /// AP by tokens.
    Tokens(TokenTable),
}

/// AP for a million tokens of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenTable {
    /// The price of input that the model had not cached.
    pub input: Decimal,
    /// The price of `input` by default.
    pub cached_input: Option<Decimal>,
    /// The price of output.
    pub output: Decimal,
    /// The least cost of a message; 1 by default.
    pub minimum: Option<u32>,
}

/// A decimal, written as a number or a string. It is read by its digits, without floating point arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal(TokenPrice);

impl Price {
    /// Returns the price of this model.
    ///
    /// # Errors
    /// If its AP are above 1,000,000.
    pub(crate) fn of_model(&self, model: &str) -> Result<ModelPrice, InvalidInput> {
        let table = match self {
            Self::Flat(ap) => return ModelPrice::flat(model, *ap),
            Self::Tokens(table) => table,
        };
        let minimum = Ap::price(table.minimum.unwrap_or(1).into());
        let minimum = minimum
            .map_err(|error| InvalidInput { field: "models", rule: format!("{model}: minimum {}", error.rule) })?;
        let prices = TokenPrices {
            input: table.input.0,
            cached_input: table.cached_input.unwrap_or(table.input).0,
            output: table.output.0,
            minimum,
        };
        Ok(prices.into())
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Price;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("AP for each answer, or a table with `input`, `cached_input`, `output` and `minimum`")
            }

            fn visit_u64<E: de::Error>(self, ap: u64) -> Result<Price, E> {
                u32::try_from(ap).map(Price::Flat).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(ap), &self))
            }

            fn visit_i64<E: de::Error>(self, ap: i64) -> Result<Price, E> {
                u32::try_from(ap).map(Price::Flat).map_err(|_| E::invalid_value(de::Unexpected::Signed(ap), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Price, A::Error> {
                TokenTable::deserialize(MapAccessDeserializer::new(map)).map(Price::Tokens)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal such as 2500 or \"0.075\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map(Decimal).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, price: u64) -> Result<Decimal, E> {
                self.visit_str(&price.to_string())
            }

            fn visit_i64<E: de::Error>(self, price: i64) -> Result<Decimal, E> {
                self.visit_str(&price.to_string())
            }

            /// The shortest decimal that is read as this number is the one that was written, if it has few digits.
            fn visit_f64<E: de::Error>(self, price: f64) -> Result<Decimal, E> {
                let text = price.to_string();
                let digits = text.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
                if digits > EXACT_DIGITS {
                    return Err(E::custom(format_args!(
                        "a number keeps {EXACT_DIGITS} digits: write the price as a string"
                    )));
                }
                self.visit_str(&text)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use quota_gate::domain::token_kinds::TokenKinds;

    use crate::config::tests::from_toml;

    use super::*;

    fn cost(table: &str, model: &str) -> u32 {
        let config = from_toml(&format!("[models]\n{table}")).unwrap();
        match config.models.prices[model].of_model(model).unwrap() {
            ModelPrice::Flat(ap) => ap.get(),
            ModelPrice::Tokens(prices) => prices.cost(TokenKinds::new(3_000_000, 1_000_000, 1_000_000).unwrap()).get(),
        }
    }

    #[test]
    fn a_price_is_ap_or_a_table_of_decimals() {
        for (table, ap) in [
            ("m = 7", 7),
            ("m = 0", 0),
            (r#"m = { input = "2500", cached_input = "1250", output = "10000", minimum = 1 }"#, 16_250),
            ("m = { input = 2500, cached_input = 1250, output = 10_000 }", 16_250),
            ("m = { input = 0.1, cached_input = 0.2, output = 0.6 }", 1),
            ("m = { input = 0.1, output = 0.7 }", 1),
            ("m = { input = 0, output = 0, minimum = 0 }", 0),
            ("m = { input = 0, output = 0 }", 1),
            ("m = { input = 0, output = 0, minimum = 9 }", 9),
        ] {
            assert_eq!(cost(table, "m"), ap, "{table}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused_by_name() {
        for (table, reason) in [
            ("m = -1", "AP for each answer, or a table"),
            ("m = \"7\"", "AP for each answer, or a table"),
            ("m = { input = 1 }", "missing field `output`"),
            ("m = { input = 1, output = 2, outptu = 3 }", "unknown field"),
            ("m = { input = -1, output = 2 }", "must be a decimal"),
            ("m = { input = \"1,5\", output = 2 }", "must be a decimal"),
            ("m = { input = 1e12, output = 2 }", "must be a decimal"),
            ("m = { input = 1234567.12345678912, output = 2 }", "write the price as a string"),
            ("m = { input = nan, output = 2 }", "must be a decimal"),
        ] {
            let refused = from_toml(&format!("[models]\n{table}")).unwrap_err().to_string();
            assert!(refused.contains(reason), "{table}: {refused}");
            assert!(refused.contains("models"), "{table}: {refused}");
        }
        let config = from_toml("[models]\nm = { input = 1, output = 2, minimum = 2_000_000 }").unwrap();
        assert!(config.models.prices["m"].of_model("m").unwrap_err().to_string().contains("m: minimum must be"));
    }
}
