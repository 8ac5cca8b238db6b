//! Prices of a model's tokens, and the cost of a message by them. All arithmetic is exact: no floating point.

use std::{fmt, str::FromStr};

use super::{InvalidInput, ap::Ap, token_kinds::TokenKinds};

/// Decimal places of a price.
const DECIMALS: u32 = 9;
/// Parts of an AP in which prices are stored.
const PARTS_PER_AP: u64 = 10_u64.pow(DECIMALS);
/// Prices are for a million tokens, as the vendors' price lists have them.
const TOKENS_PER_PRICE: u64 = 1_000_000;

/// AP for a million tokens of one kind: a decimal from 0 to 1,000,000,000 with at most nine places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenPrice(u64);

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPrices {
    /// For input that the model had not cached.
    pub input: TokenPrice,
    /// For input that it had cached.
    pub cached_input: TokenPrice,
    /// For output.
    pub output: TokenPrice,
    /// Least cost of a message; may be 0.
    pub minimum: Ap,
}

impl TokenPrice {
    /// The maximum, in AP. With it a sum of all tokens that a message may have does not overflow.
    const AP_MAX: u64 = 1_000_000_000;

    fn times(self, tokens: u32) -> u128 {
        u128::from(self.0) * u128::from(tokens)
    }
}

impl FromStr for TokenPrice {
    type Err = InvalidInput;

    /// Reads a decimal such as `2500` or `0.075`.
    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let read = || {
            let is_valid = is_number(whole) && is_number(fraction) && fraction.len() <= DECIMALS as usize;
            let ap: u64 = is_valid.then(|| whole.parse().ok())??;
            let parts: u64 = format!("{fraction:0<width$}", width = DECIMALS as usize).parse().ok()?;
            let price = ap.checked_mul(PARTS_PER_AP)?.checked_add(parts)?;
            (price <= Self::AP_MAX * PARTS_PER_AP).then_some(Self(price))
        };
        read().ok_or_else(|| {
            let most = Self::AP_MAX;
            let rule = format!("must be a decimal from 0 to {most} with at most {DECIMALS} places, not {text:?}");
            InvalidInput { field: "price", rule }
        })
    }
}

impl fmt::Display for TokenPrice {
    /// Writes the shortest decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / PARTS_PER_AP, self.0 % PARTS_PER_AP);
        if parts == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{parts:0width$}", width = DECIMALS as usize);
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

impl TokenPrices {
    /// Orders prices roughly by what messages cost.
    pub(super) const fn rank(&self) -> u64 {
        self.output.0
    }

    /// Cost of a message: the exact sum over all kinds, rounded up once, at least the minimum and at most
    /// [`Ap::COST_MAX`]. Cached input is a part of the input, and costs its own price only.
    #[must_use]
    pub fn cost(&self, kinds: TokenKinds) -> Ap {
        let sum = self.input.times(kinds.input() - kinds.cached_input())
            + self.cached_input.times(kinds.cached_input())
            + self.output.times(kinds.output());
        let ap = sum.div_ceil(u128::from(TOKENS_PER_PRICE * PARTS_PER_AP));
        let ap = u32::try_from(ap).unwrap_or(u32::MAX).min(Ap::COST_MAX);
        self.minimum.max(Ap::new(ap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(input: &str, cached: &str, output: &str, minimum: u32) -> TokenPrices {
        let price = |text: &str| text.parse().unwrap();
        TokenPrices {
            input: price(input),
            cached_input: price(cached),
            output: price(output),
            minimum: Ap::new(minimum),
        }
    }

    fn kinds(input: u32, cached: u32, output: u32) -> TokenKinds {
        TokenKinds::new(input, cached, output).unwrap()
    }

    #[test]
    fn prices_are_exact_decimals() {
        for (text, shown) in [
            ("2500", "2500"),
            ("0.075", "0.075"),
            ("0.000000001", "0.000000001"),
            ("00.10", "0.1"),
            ("1000000000", "1000000000"),
            ("0", "0"),
        ] {
            assert_eq!(text.parse::<TokenPrice>().unwrap().to_string(), shown, "{text}");
        }
        for refused in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1_000",
            " 1",
            "0.0000000001",
            "1000000000.1",
            "1.2.3",
            "１",
            "NaN",
        ] {
            assert!(refused.parse::<TokenPrice>().is_err(), "{refused}");
        }
    }

    #[test]
    fn kinds_are_summed_exactly_and_rounded_up_once() {
        let gpt = prices("2500", "1250", "10000", 1);
        for (input, cached, output, ap) in [
            (0, 0, 0, 1),
            (1_000_000, 0, 0, 2_500),
            (1_000_000, 1_000_000, 0, 1_250),
            (1_000_000, 400_000, 100_000, 1_500 + 500 + 1_000),
            // 0.25 + 0.125 + 0.625 is exactly 1; each kind rounded up would be 3.
            (200, 100, 62, 1),
            (200, 100, 63, 2),
        ] {
            assert_eq!(gpt.cost(kinds(input, cached, output)).get(), ap, "{input} {cached} {output}");
        }
        // Exactly 1.
        assert_eq!(prices("0.1", "0.2", "0.7", 0).cost(kinds(2_000_000, 1_000_000, 1_000_000)).get(), 1);
    }

    #[test]
    fn the_minimum_may_be_zero_and_the_maximum_is_that_of_a_cost() {
        assert_eq!(prices("1", "1", "1", 0).cost(kinds(0, 0, 0)), Ap::ZERO);
        assert_eq!(prices("1", "1", "1", 0).cost(kinds(1, 0, 0)), Ap::ONE);
        assert_eq!(prices("0", "0", "0", 7).cost(kinds(5, 0, 5)).get(), 7);
        let dearest = prices("1000000000", "1000000000", "1000000000", 0);
        assert_eq!(dearest.cost(kinds(i32::MAX.unsigned_abs(), 0, 0)).get(), Ap::COST_MAX);
    }
}
