//! The cost of an answer by its tokens: estimated from the request before it is generated, then by what was delivered,
//! and exact once the upstream reports its usage.

use quota_gate::domain::{
    InvalidInput,
    ap::Ap,
    model_costs::{ModelCosts, ModelPrice},
    token_kinds::TokenKinds,
    usage::Tokens,
};

use crate::openai::{
    request::{Api, output_tokens_max},
    usage::EventSummary,
};

/// Bytes of text that are assumed to be one token.
const BYTES_PER_TOKEN: u64 = 4;
/// A longer run of base64 characters is an attachment, such as a picture: no text has such long words.
const WORD_BYTES_MAX: usize = 1_024;
/// Input tokens that are assumed for an attachment.
const ATTACHMENT_TOKENS: u64 = 1_000;

/// What a message may cost: it is charged by the dearest model that the upstream may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pricing {
    prices: Vec<ModelPrice>,
    answers: u32,
    estimate: TokenKinds,
}

/// Meters an answer.
#[derive(Debug)]
pub(crate) struct TokenMeter {
    pricing: Pricing,
    reported: Option<Tokens>,
    output_bytes: u64,
}

impl Pricing {
    /// Creates the pricing of a request for this number of answers of one of these models.
    pub(crate) fn new(
        costs: &ModelCosts,
        models: &[String],
        (api, answers): (Api, u32),
        body: &[u8],
    ) -> Result<Self, InvalidInput> {
        let prices = models.iter().map(|model| costs.of(Some(model))).collect::<Result<Vec<_>, _>>()?;
        let by_tokens = prices.iter().any(|price| matches!(price, ModelPrice::Tokens(_)));
        // Only prices by tokens need the estimate.
        let (input, output_max) =
            if by_tokens { (input_tokens(body), output_tokens_max(api, body)) } else { (0, None) };
        let output = output_max.unwrap_or_else(|| costs.output_tokens_assumed().into());
        let estimate = TokenKinds::clamped(input, 0, output.saturating_mul(answers.into())).estimated();
        Ok(Self { prices, answers, estimate })
    }

    /// The cost to hold.
    pub(crate) fn estimate(&self) -> Result<Ap, InvalidInput> {
        let flat = |ap: &Ap| Ap::price(i64::from(ap.get()) * i64::from(self.answers));
        for price in &self.prices {
            if let ModelPrice::Flat(ap) = price {
                flat(ap)?;
            }
        }
        Ok(self.cost(self.estimate))
    }

    /// Returns a meter, if some price is by tokens.
    pub(crate) fn meter(self) -> Option<TokenMeter> {
        let by_tokens = self.prices.iter().any(|price| matches!(price, ModelPrice::Tokens(_)));
        by_tokens.then_some(TokenMeter { pricing: self, reported: None, output_bytes: 0 })
    }

    /// The cost of these tokens, which are those of all answers.
    fn cost(&self, kinds: TokenKinds) -> Ap {
        let cost = |price: &ModelPrice| match price {
            // Each answer is a separate generation.
            ModelPrice::Flat(ap) => Ap::new(ap.get().saturating_mul(self.answers).min(Ap::COST_MAX)),
            ModelPrice::Tokens(prices) => prices.cost(kinds),
        };
        self.prices.iter().map(cost).max().unwrap_or_default()
    }
}

impl TokenMeter {
    /// Adds what an event says.
    pub(crate) fn add(&mut self, summary: &EventSummary) {
        // Some upstreams end with a report of zeros, after the real one.
        let known = self.reported.map_or(0, Tokens::get);
        self.reported = summary.tokens.filter(|tokens| tokens.get() > known).or(self.reported);
        self.output_bytes += summary.output_bytes;
    }

    /// Adds bytes of an answer that are not read: all of them count as output.
    pub(crate) fn add_unread(&mut self, bytes: u64) {
        self.output_bytes += bytes;
    }

    /// Replaces what was delivered so far, because it was read as a whole.
    pub(crate) fn forget_delivered(&mut self) {
        self.output_bytes = 0;
    }

    /// Assumes at least the output that was held, because a part of it cannot be read.
    pub(crate) fn assume_held(&mut self) {
        self.output_bytes = self.output_bytes.max(u64::from(self.pricing.estimate.output()) * BYTES_PER_TOKEN);
    }

    /// The cost of what was delivered, and its tokens. A report counts as it is if the answer is complete. Of an answer
    /// that stopped, the upstream may have reported only a part.
    pub(crate) fn charge(&self, is_complete: bool) -> (Ap, Tokens) {
        let kinds = self.kinds(is_complete);
        (self.pricing.cost(kinds), Tokens::of_kinds(kinds))
    }

    fn kinds(&self, is_complete: bool) -> TokenKinds {
        let (delivered, estimate) = (self.output_bytes.div_ceil(BYTES_PER_TOKEN), self.pricing.estimate);
        let Some(reported) = self.reported else {
            return TokenKinds::clamped(estimate.input().into(), 0, delivered).estimated();
        };
        match reported.kinds() {
            Some(kinds) if is_complete || delivered <= kinds.output().into() => kinds,
            Some(kinds) => {
                TokenKinds::clamped(kinds.input().into(), kinds.cached_input().into(), delivered).estimated()
            }
            // Only the total is known.
            None => {
                let input = estimate.input().min(reported.get());
                TokenKinds::clamped(input.into(), 0, (reported.get() - input).into()).estimated()
            }
        }
    }
}

/// Estimates the input tokens of a request: a token for each four bytes of its body, and a fixed number for each
/// attachment.
fn input_tokens(body: &[u8]) -> u64 {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    let (mut text_bytes, mut attachments) = (0_u64, 0_u64);
    for run in body.chunk_by(|one, next| is_base64(one) == is_base64(next)) {
        if run.len() > WORD_BYTES_MAX && run.first().is_some_and(is_base64) {
            attachments += 1;
        } else {
            text_bytes += run.len() as u64;
        }
    }
    text_bytes.div_ceil(BYTES_PER_TOKEN) + attachments * ATTACHMENT_TOKENS
}

#[cfg(test)]
mod tests {
    use quota_gate::domain::token_prices::TokenPrices;

    use super::*;

    /// A meter of a request of 40 bytes, at 1 AP for an input token, a tenth for a cached one, and 10 for output.
    fn meter(answers: u32) -> TokenMeter {
        let price = |text: &str| text.parse().unwrap();
        let prices = TokenPrices {
            input: price("1000000"),
            cached_input: price("100000"),
            output: price("10000000"),
            minimum: Ap::ONE,
        };
        let costs = [("default".to_owned(), ModelPrice::Flat(Ap::new(30))), ("m".to_owned(), prices.into())];
        let costs = ModelCosts::by_price(costs).unwrap();
        let body = format!(r#"{{"max_tokens":5{}}}"#, " ".repeat(24));
        assert_eq!(body.len(), 40);
        let pricing =
            Pricing::new(&costs, &["m".to_owned()], (Api::ChatCompletions, answers), body.as_bytes()).unwrap();
        assert_eq!(pricing.estimate().unwrap().get(), 10 + answers * 50);
        pricing.meter().unwrap()
    }

    fn content(bytes: u64) -> EventSummary {
        EventSummary { content: true, output_bytes: bytes, ..EventSummary::default() }
    }

    fn report(tokens: Tokens) -> EventSummary {
        EventSummary { tokens: Some(tokens), ..EventSummary::default() }
    }

    fn kinds(input: u32, cached: u32, output: u32) -> Tokens {
        Tokens::of_kinds(TokenKinds::new(input, cached, output).unwrap())
    }

    #[test]
    fn an_answer_without_a_report_costs_what_was_delivered() {
        let mut meter = meter(2);
        assert_eq!(meter.charge(false).0.get(), 10);
        meter.add(&content(9));
        let (ap, tokens) = meter.charge(true);
        assert_eq!((ap.get(), tokens.kinds()), (10 + 30, Some(TokenKinds::new(10, 0, 3).unwrap().estimated())));
        meter.assume_held();
        assert_eq!(meter.charge(true).0.get(), 10 + 100);
    }

    #[test]
    fn a_report_replaces_the_estimate_and_cached_tokens_count_once() {
        let mut meter = meter(1);
        meter.add(&content(4_000));
        meter.add(&report(kinds(100, 90, 7)));
        meter.add(&report(Tokens::ZERO));
        assert_eq!(meter.charge(true), (Ap::new(10 + 9 + 70), kinds(100, 90, 7)));
    }

    #[test]
    fn a_stopped_answer_costs_at_least_what_was_delivered_after_an_early_report() {
        let mut meter = meter(1);
        meter.add(&report(kinds(100, 90, 1)));
        meter.add(&content(40));
        let (ap, tokens) = meter.charge(false);
        assert_eq!((ap.get(), tokens.kinds().map(TokenKinds::is_estimated)), (10 + 9 + 100, Some(true)));
        assert_eq!(meter.charge(true).1, kinds(100, 90, 1));
    }

    #[test]
    fn a_report_of_the_total_only_is_divided_by_the_estimate() {
        let mut meter = meter(1);
        meter.add(&report(Tokens::new(12).unwrap()));
        let (ap, tokens) = meter.charge(true);
        assert_eq!((ap.get(), tokens.get()), (10 + 20, 12));
        assert!(tokens.kinds().unwrap().is_estimated());
    }

    #[test]
    fn the_dearest_model_sets_the_cost_and_flat_prices_need_no_meter() {
        let costs = ModelCosts::new(&[("default".to_owned(), 5), ("dear".to_owned(), 40)].into()).unwrap();
        let pricing = Pricing::new(&costs, &["x".to_owned(), "dear".to_owned()], (Api::Responses, 3), b"").unwrap();
        assert_eq!(pricing.estimate().unwrap().get(), 120);
        assert!(pricing.meter().is_none());
        let too_dear = ModelCosts::new(&[("default".to_owned(), 10_000)].into()).unwrap();
        assert!(Pricing::new(&too_dear, &["x".to_owned()], (Api::Responses, 101), b"").unwrap().estimate().is_err());
    }

    #[test]
    fn attachments_are_not_counted_as_text() {
        let picture = "QUJD".repeat(100_000);
        let body = format!(r#"{{"text":"one two three","image_url":"data:image/png;base64,{picture}"}}"#);
        assert_eq!(input_tokens(body.as_bytes()), 1_000 + 64_u64.div_ceil(4));
        assert_eq!(input_tokens(&[b'a'; 1_024]), 256);
        assert_eq!(input_tokens("会话会话".as_bytes()), 3);
    }
}
