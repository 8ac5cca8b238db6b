//! Reads an answer while it passes: what it says, and which part of it the client gets.

use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};

use crate::openai::{
    events::Events,
    form::{Form, form, form_by_header, leading_bytes},
    progress::Progress,
    request::Plan,
    token_meter::TokenMeter,
    usage::{End, EventSummary, summarize_event, summarize_whole},
};
use quota_gate_axum::AnswerCost;

/// Maximum size of an unstreamed answer that is read.
const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;

const UNREAD_ANSWERS: &str = "quota_gate_proxy_unread_answers_total";

/// Why an answer was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is compressed in a way that the gate cannot decode. It passes, and is charged.
    Encoding,
    /// It, or an event, is too long to be read. It passes, and is charged.
    TooLong,
    /// It is neither an answer of the API nor an error. It passes, and costs nothing.
    Form,
}

/// An answer that passes.
pub(crate) struct Reading {
    plan: Plan,
    progress: Progress,
    state: State,
}

enum State {
    /// The form by the header, and the first bytes until they show it.
    Undecided(Form, BytesMut),
    Events(Events),
    Whole(BytesMut),
    /// Passes unread.
    Unread,
}

impl Reading {
    pub(crate) fn new(plan: Plan, headers: &HeaderMap, answer_cost: AnswerCost, meter: Option<TokenMeter>) -> Self {
        let state = State::Undecided(form_by_header(headers), BytesMut::new());
        Self { plan, progress: Progress::new(answer_cost, meter), state }
    }

    /// Reads a piece and returns what the client gets.
    pub(crate) fn pass(&mut self, piece: Bytes) -> Bytes {
        let Self { plan, progress, state } = self;
        match state {
            State::Undecided(by_header, held) => {
                held.extend_from_slice(&piece);
                // White space keeps a connection alive: it passes immediately.
                let mut passed = held.split_to(leading_bytes(held));
                let Some(form) = form(held, *by_header) else { return passed.freeze() };
                let held = std::mem::take(held).freeze();
                *state = match form {
                    Form::Events => State::Events(Events::default()),
                    Form::Whole => {
                        // A client that disconnects has read a part of the answer.
                        progress.content();
                        State::Whole(BytesMut::new())
                    }
                };
                passed.extend_from_slice(&self.pass(held));
                passed.freeze()
            }
            State::Events(events) => {
                let passed = events.pass(&piece, |event| keeps(*plan, progress, event));
                if events.take_overlong() {
                    progress.unread();
                    count(Unread::TooLong);
                }
                passed
            }
            State::Whole(whole) => {
                whole.extend_from_slice(&piece);
                progress.delivered(piece.len());
                if whole.len() > WHOLE_BYTES_MAX {
                    self.leave_unread(Unread::TooLong);
                }
                piece
            }
            State::Unread => piece,
        }
    }

    /// Passes the rest unread. It is charged.
    pub(crate) fn leave_unread(&mut self, reason: Unread) {
        if !self.is_unread() {
            self.state = State::Unread;
            self.progress.unread();
            count(reason);
        }
    }

    pub(crate) const fn is_unread(&self) -> bool {
        matches!(self.state, State::Unread)
    }

    /// Whether the client must not see the event that reports usage.
    pub(crate) const fn hides_usage(&self) -> bool {
        self.plan.hides_usage
    }

    /// Handles the end of the body: checks whether the answer is complete, and returns the rest for the client.
    pub(crate) fn end(&mut self) -> Bytes {
        match std::mem::replace(&mut self.state, State::Unread) {
            State::Undecided(_, held) => {
                self.progress.fail_whole();
                if !held.is_empty() {
                    count(Unread::Form);
                }
                held.freeze()
            }
            State::Events(mut events) => {
                let rest = events.rest();
                let is_kept = keeps(self.plan, &mut self.progress, &rest);
                if !self.progress.end() {
                    count(Unread::Form);
                }
                if is_kept { rest } else { Bytes::new() }
            }
            State::Whole(whole) => {
                let summary = summarize_whole(&whole);
                self.progress.record_whole(summary);
                if summary.end != Some(End::Finished) || !summary.begins {
                    // An error with a success status, unfinished, empty, or no answer.
                    self.progress.fail_whole();
                }
                if summary == EventSummary::default() {
                    count(Unread::Form);
                }
                Bytes::new()
            }
            State::Unread => Bytes::new(),
        }
    }

    /// Handles a body that breaks off.
    pub(crate) fn break_off(&mut self) {
        if matches!(self.state, State::Undecided(..) | State::Whole(_)) {
            // The client cannot use a part of a JSON document.
            self.progress.fail_whole();
        }
    }
}

/// Reads an event. Returns false if the client must not see it: it is the report of usage that the gate requested.
fn keeps(plan: Plan, progress: &mut Progress, event: &[u8]) -> bool {
    let summary = summarize_event(plan.api, event);
    progress.record(summary);
    !(plan.hides_usage && summary.only_usage)
}

/// Creates the counters, so that they start at 0.
pub(crate) fn register_counters() {
    for reason in [Unread::Encoding, Unread::TooLong, Unread::Form] {
        metrics::counter!(UNREAD_ANSWERS, "reason" => reason.label()).increment(0);
    }
}

fn count(reason: Unread) {
    metrics::counter!(UNREAD_ANSWERS, "reason" => reason.label()).increment(1);
    tracing::warn!(reason = reason.label(), "an answer was not understood");
}

impl Unread {
    const fn label(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::TooLong => "too_long",
            Self::Form => "form",
        }
    }
}
