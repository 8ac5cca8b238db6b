//! How far an answer has come, which decides its cost: nothing, content, complete or failed.
//!
//! | stage | reached by | what it costs if the answer stops here |
//! | --- | --- | --- |
//! | nothing | the start, also after an end without an answer | nothing |
//! | content | text, a tool call, a picture | `upstream.client_gone` decides |
//! | complete | the end of an answer that has begun | the full cost |
//! | failed | an error, before or after content; final, whatever follows | as before the failure |
//!
//! A message to a model with prices by tokens costs at each of them what its meter says.

use crate::openai::{
    token_meter::TokenMeter,
    usage::{End, EventSummary},
};
use quota_gate::domain::usage::Tokens;
use quota_gate_axum::AnswerCost;

/// What was read of an answer so far, and where the gate notes it.
pub(crate) struct Progress {
    answer_cost: AnswerCost,
    /// None for a message with a flat price.
    meter: Option<TokenMeter>,
    stage: Stage,
    end: Option<End>,
    tokens: Tokens,
    understood: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Nothing,
    /// An answer has begun, but is empty so far.
    Begun,
    Content,
    Failed,
}

impl Progress {
    /// Starts with an answer of which nothing is content.
    pub(crate) fn new(answer_cost: AnswerCost, meter: Option<TokenMeter>) -> Self {
        answer_cost.preamble();
        let (stage, tokens) = (Stage::Nothing, Tokens::ZERO);
        let progress = Self { answer_cost, meter, stage, end: None, tokens, understood: false };
        progress.note_cost();
        progress
    }

    /// Adds what an event, or a whole answer, says.
    pub(crate) fn record(&mut self, summary: EventSummary) {
        self.understood |= summary != EventSummary::default();
        if let Some(meter) = &mut self.meter {
            meter.add(&summary);
        } else if let Some(tokens) = summary.tokens.filter(|tokens| tokens.get() > self.tokens.get()) {
            // Some upstreams end with a report of zeros, after the real one.
            self.tokens = tokens.without_kinds();
            self.answer_cost.set_tokens(self.tokens);
        }
        self.end = self.end.max(summary.end);
        if self.end == Some(End::Failed) {
            self.stage = Stage::Failed;
            self.note_cost();
            return self.answer_cost.broke_off();
        }
        if summary.begins && self.stage == Stage::Nothing {
            self.stage = Stage::Begun;
        }
        // An empty answer is still an answer, once it is complete.
        if summary.content || self.is_complete() {
            self.content();
        }
        self.note_cost();
    }

    /// Adds what a whole answer says, whose bytes were counted as they came.
    pub(crate) fn record_whole(&mut self, summary: EventSummary) {
        if let Some(meter) = &mut self.meter {
            meter.forget_delivered();
        }
        self.record(summary);
    }

    /// Adds bytes of an answer that is read later, as a whole.
    pub(crate) fn delivered(&mut self, bytes: usize) {
        if let Some(meter) = &mut self.meter {
            meter.add_unread(bytes as u64);
            self.note_cost();
        }
    }

    /// Notes that a part of the answer cannot be read, and was delivered.
    pub(crate) fn unread(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.assume_held();
            self.note_cost();
        }
        self.content();
    }

    /// Notes what the answer costs if no more of it comes.
    fn note_cost(&self) {
        if let Some(meter) = &self.meter {
            let (ap, tokens) = meter.charge(self.is_complete());
            self.answer_cost.set(ap, tokens);
        }
    }

    /// Notes that a part of the answer was delivered.
    pub(crate) fn content(&mut self) {
        if matches!(self.stage, Stage::Nothing | Stage::Begun) {
            self.stage = Stage::Content;
            self.answer_cost.content_begins();
        }
    }

    /// Notes that what was delivered is of no use.
    pub(crate) fn fail_whole(&mut self) {
        self.stage = Stage::Failed;
        self.answer_cost.preamble();
        self.answer_cost.broke_off();
    }

    /// Handles the end of the body. Returns whether anything of it was understood.
    pub(crate) fn end(&mut self) -> bool {
        if !self.is_complete() {
            self.answer_cost.broke_off();
        }
        self.understood
    }

    /// An end is no content: it completes only an answer that has begun. The end marker says nothing about the model,
    /// so it does not complete an empty answer.
    const fn is_complete(&self) -> bool {
        match self.stage {
            Stage::Nothing | Stage::Failed => false,
            Stage::Begun => matches!(self.end, Some(End::Finished)),
            Stage::Content => matches!(self.end, Some(End::Finished | End::Closed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Cost {
        Nothing,
        Full,
        /// `upstream.client_gone` decides.
        Delivered,
    }

    const BEGINS: EventSummary =
        EventSummary { begins: true, content: false, tokens: None, end: None, only_usage: false, output_bytes: 0 };
    const CONTENT: EventSummary = EventSummary { content: true, ..BEGINS };

    fn end(end: End) -> EventSummary {
        EventSummary { end: Some(end), ..EventSummary::default() }
    }

    fn cost(events: &[EventSummary]) -> Cost {
        let answer_cost = AnswerCost::default();
        let mut progress = Progress::new(answer_cost.clone(), None);
        for event in events {
            progress.record(*event);
        }
        progress.end();
        match (answer_cost.is_preamble(), answer_cost.has_broken_off()) {
            (true, _) => Cost::Nothing,
            (false, true) => Cost::Delivered,
            (false, false) => Cost::Full,
        }
    }

    #[test]
    fn failure_is_final_wherever_it_is() {
        let (finished, closed, failed) = (end(End::Finished), end(End::Closed), end(End::Failed));
        for at in 0..=4 {
            let mut events = vec![BEGINS, CONTENT, finished, closed];
            events.insert(at, failed);
            let expected = if at < 2 { Cost::Nothing } else { Cost::Delivered };
            assert_eq!(cost(&events), expected, "at {at}");
        }
        assert_eq!(cost(&[failed, closed]), Cost::Nothing);
        assert_eq!(cost(&[EventSummary { end: Some(End::Failed), ..CONTENT }, closed]), Cost::Nothing);
    }

    #[test]
    fn end_completes_only_an_answer_that_has_begun() {
        let (finished, closed) = (end(End::Finished), end(End::Closed));
        for nothing in [&[][..], &[closed], &[finished], &[finished, closed], &[BEGINS], &[BEGINS, closed]] {
            assert_eq!(cost(nothing), Cost::Nothing, "{nothing:?}");
        }
        for full in [
            &[CONTENT, finished][..],
            &[CONTENT, closed],
            &[BEGINS, finished],
            &[BEGINS, finished, closed],
            &[finished, CONTENT],
        ] {
            assert_eq!(cost(full), Cost::Full, "{full:?}");
        }
        assert_eq!(cost(&[BEGINS, CONTENT]), Cost::Delivered);
        let unknown = end(End::Unknown);
        assert_eq!(cost(&[unknown, BEGINS, unknown, closed]), Cost::Nothing);
        assert_eq!(cost(&[CONTENT, unknown, closed]), Cost::Delivered);
        assert_eq!(cost(&[CONTENT, unknown, finished, closed]), Cost::Full);
    }

    #[test]
    fn zeros_do_not_erase_reported_tokens() {
        let mut progress = Progress::new(AnswerCost::default(), None);
        for tokens in [0, 5, 27, 0] {
            progress.record(EventSummary { tokens: Tokens::new(tokens).ok(), ..EventSummary::default() });
        }
        assert_eq!(progress.tokens.get(), 27);
    }
}
