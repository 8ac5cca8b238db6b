//! Kinds of tokens: input, the part of it that the model had cached, and output.

use super::{InvalidInput, usage::Tokens};

/// Tokens of one message by kind, as in the usage report of OpenAI's API: cached tokens are a part of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenKinds {
    input: u32,
    cached_input: u32,
    output: u32,
    estimated: bool,
}

impl TokenKinds {
    /// Creates kinds that a model has counted.
    ///
    /// # Errors
    /// If `cached_input` exceeds `input`, or all tokens together exceed 2^31 - 1.
    pub fn new(input: u32, cached_input: u32, output: u32) -> Result<Self, InvalidInput> {
        if cached_input > input {
            let rule = format!("must be at most inputTokens ({input}), which includes them");
            return Err(InvalidInput { field: "cachedInputTokens", rule });
        }
        Tokens::new(i64::from(input) + i64::from(output))?;
        Ok(Self { input, cached_input, output, estimated: false })
    }

    /// Creates kinds from counts of any size: cached input is limited to the input, and all together to 2^31 - 1.
    #[must_use]
    pub fn clamped(input: u64, cached_input: u64, output: u64) -> Self {
        const MAX: u64 = i32::MAX as u64;
        let input = input.min(MAX);
        let (cached_input, output) = (cached_input.min(input), output.min(MAX - input));
        let count = |tokens: u64| u32::try_from(tokens).unwrap_or_default();
        Self { input: count(input), cached_input: count(cached_input), output: count(output), estimated: false }
    }

    /// Marks the kinds as an estimate of the gate: the model has counted nothing.
    #[must_use]
    pub const fn estimated(self) -> Self {
        Self { estimated: true, ..self }
    }

    /// All input tokens, including cached ones.
    #[must_use]
    pub const fn input(self) -> u32 {
        self.input
    }

    /// The part of the input that the model had cached.
    #[must_use]
    pub const fn cached_input(self) -> u32 {
        self.cached_input
    }

    /// Output tokens.
    #[must_use]
    pub const fn output(self) -> u32 {
        self.output
    }

    /// Whether the gate has estimated them.
    #[must_use]
    pub const fn is_estimated(self) -> bool {
        self.estimated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_a_part_of_the_input_and_the_total_has_a_bound() {
        let most = i32::MAX.unsigned_abs();
        for (input, cached, output, valid) in [
            (0, 0, 0, true),
            (10, 10, 0, true),
            (9, 10, 5, false),
            (most, 0, 0, true),
            (most - 5, 0, 5, true),
            (most, 0, 1, false),
            (u32::MAX, 0, u32::MAX, false),
        ] {
            assert_eq!(TokenKinds::new(input, cached, output).is_ok(), valid, "{input} {cached} {output}");
        }
        let clamped = TokenKinds::clamped(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!((clamped.input(), clamped.cached_input(), clamped.output()), (most, most, 0));
        assert_eq!(TokenKinds::clamped(9, 12, 5), TokenKinds::new(9, 9, 5).unwrap());
        assert_eq!(Tokens::of_kinds(TokenKinds::new(7, 3, 4).unwrap()).get(), 11, "cached tokens count once");
    }
}
