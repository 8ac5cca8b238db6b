//! A message of the usage log, with what decides its price.

use crate::domain::token_kinds::TokenKinds;

/// A message that was charged. Texts are borrowed, because a replay reads millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedMessage<'a> {
    /// Id of the user.
    pub user: &'a str,
    /// Name of the user's level at the time.
    pub level: &'a str,
    /// Model that wrote the answer; empty if it is unknown.
    pub model: &'a str,
    /// Time of the charge, in ms since 1970.
    pub at_ms: i64,
    /// Period that was charged, as a number of the log. Only compared.
    pub period: i32,
    /// AP that were charged.
    pub ap: u32,
    /// AP of those that grants paid.
    pub granted: u32,
    /// AP that the quota did not cover.
    pub overage: u32,
    /// Tokens that the model counted.
    pub tokens: LoggedTokens,
}

/// Tokens of a message by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoggedTokens {
    /// Input tokens.
    pub input: u32,
    /// Those of them that were cached.
    pub cached_input: u32,
    /// Output tokens; all tokens if the kinds are unknown.
    pub output: u32,
    /// Whether only the total is known.
    pub is_total: bool,
}

impl LoggedTokens {
    /// Tokens of unknown kinds, 0 if their number is unknown too.
    #[must_use]
    pub const fn total(tokens: u32) -> Self {
        Self { input: 0, cached_input: 0, output: tokens, is_total: true }
    }

    pub(super) fn kinds(self) -> TokenKinds {
        TokenKinds::clamped(self.input.into(), self.cached_input.into(), self.output.into())
    }
}

impl LoggedMessage<'_> {
    /// What the message cost, charged or not.
    #[must_use]
    pub const fn cost(&self) -> u32 {
        self.ap.saturating_add(self.overage)
    }
}
