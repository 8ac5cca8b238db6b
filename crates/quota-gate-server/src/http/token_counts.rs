//! Tokens in request bodies: the total, or their kinds.

use quota_gate::domain::{InvalidInput, token_kinds::TokenKinds, usage::Tokens};

/// The members of a body that count tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenCounts {
    pub(crate) tokens: Option<i64>,
    pub(crate) input: Option<i64>,
    pub(crate) cached_input: Option<i64>,
    pub(crate) output: Option<i64>,
}

impl TokenCounts {
    /// Returns the tokens, with their kinds if one of these is given. The others are then 0.
    pub(crate) fn tokens(self) -> Result<Tokens, InvalidInput> {
        let Self { tokens, input, cached_input, output } = self;
        let total = Tokens::new(tokens.unwrap_or(0))?;
        if input.or(cached_input).or(output).is_none() {
            return Ok(total);
        }
        let count = |field: &'static str, count: Option<i64>| {
            let tokens = Tokens::new(count.unwrap_or(0));
            tokens.map(Tokens::get).map_err(|error| InvalidInput { field, rule: error.rule })
        };
        let (input, output) = (count("inputTokens", input)?, count("outputTokens", output)?);
        let sum = Tokens::of_kinds(TokenKinds::new(input, count("cachedInputTokens", cached_input)?, output)?);
        if tokens.is_some() && total.get() != sum.get() {
            let rule = format!("must be inputTokens + outputTokens ({}), or absent", sum.get());
            return Err(InvalidInput { field: "tokens", rule });
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_make_the_total_and_contradictions_are_refused() {
        let counts = |tokens, input, cached_input, output| TokenCounts { tokens, input, cached_input, output };
        let kinds = |input, cached, output| Tokens::of_kinds(TokenKinds::new(input, cached, output).unwrap());
        for (given, tokens) in [
            (counts(None, None, None, None), Ok(Tokens::ZERO)),
            (counts(Some(7), None, None, None), Tokens::new(7)),
            (counts(None, Some(5), Some(3), Some(2)), Ok(kinds(5, 3, 2))),
            (counts(Some(7), Some(5), None, Some(2)), Ok(kinds(5, 0, 2))),
            (counts(None, None, None, Some(2)), Ok(kinds(0, 0, 2))),
        ] {
            assert_eq!(given.tokens(), tokens, "{given:?}");
        }
        for (given, field) in [
            (counts(Some(8), Some(5), None, Some(2)), "tokens"),
            (counts(None, Some(5), Some(6), Some(2)), "cachedInputTokens"),
            (counts(None, None, Some(6), None), "cachedInputTokens"),
            (counts(None, Some(-1), None, None), "inputTokens"),
            (counts(None, None, None, Some(1 << 31)), "outputTokens"),
            (counts(None, Some(2_147_483_647), None, Some(1)), "tokens"),
        ] {
            assert_eq!(given.tokens().unwrap_err().field, field, "{given:?}");
        }
    }
}
