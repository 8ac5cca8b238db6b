//! The arithmetic of token prices, compared to arithmetic on decimal digits.

use proptest::prelude::*;
use quota_gate::domain::{
    ap::Ap,
    token_kinds::TokenKinds,
    token_prices::{TokenPrice, TokenPrices},
};

/// Prices by their whole AP and their billionths.
fn prices(numbers: [(u64, u64); 3], minimum: u32) -> TokenPrices {
    let [input, cached_input, output] =
        numbers.map(|(whole, parts)| format!("{whole}.{parts:09}").parse::<TokenPrice>().unwrap());
    TokenPrices { input, cached_input, output, minimum: Ap::new(minimum) }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The cost is the smallest whole number that is not below the sum.
    #[test]
    fn cost_is_the_exact_sum_rounded_up_once(
        numbers in prop::array::uniform3((0..20_000_u64, 0..1_000_000_000_u64)),
        (input, cached, output) in (0..3_000_000_u32, 0..3_000_000_u32, 0..3_000_000_u32),
        minimum in 0..5_u32,
    ) {
        let cached = cached.min(input);
        let kinds = TokenKinds::new(input, cached, output).unwrap();
        let cost = prices(numbers, minimum).cost(kinds).get();
        let exact: u128 = numbers
            .iter()
            .zip([input - cached, cached, output])
            .map(|((whole, parts), tokens)| {
                (u128::from(*whole) * 1_000_000_000 + u128::from(*parts)) * u128::from(tokens)
            })
            .sum();
        let unit = 1_000_000_000 * 1_000_000;
        let least = exact / unit + u128::from(!exact.is_multiple_of(unit));
        prop_assert_eq!(u128::from(cost), least.clamp(u128::from(minimum), u128::from(Ap::COST_MAX)));
    }

    #[test]
    fn more_tokens_never_cost_less_and_cached_ones_never_more(
        (input, cached, output) in (0..1_000_000_u32, 0..1_000_000_u32, 0..1_000_000_u32),
    ) {
        let prices = prices([(3, 700_000_000), (0, 370_000_000), (15, 123_456_789)], 1);
        let cached = cached.min(input);
        let cost = |input, cached, output| prices.cost(TokenKinds::new(input, cached, output).unwrap());
        let here = cost(input, cached, output);
        prop_assert!(here <= cost(input, 0, output));
        prop_assert!(here <= cost(input, cached, output + 1));
        prop_assert!(here <= cost(input + 1, cached, output));
    }

    #[test]
    fn a_price_is_read_as_it_is_written(whole in 0..1_000_000_000_u64, parts in 0..1_000_000_000_u64) {
        let text = format!("{whole}.{parts:09}");
        let price: TokenPrice = text.parse().unwrap();
        let shown = price.to_string();
        prop_assert_eq!(shown.parse::<TokenPrice>().unwrap(), price);
        let trimmed = text.trim_end_matches('0').trim_end_matches('.');
        prop_assert_eq!(shown, trimmed);
    }
}
