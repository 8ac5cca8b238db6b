//! The answer's body on its way to the client. It is read in passing, for what it used and how it ended.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

use crate::http::answers::problem::{Code, Problem};
use crate::openai::{
    events::Events,
    request::Plan,
    usage::{End, EventSummary, of_event, of_whole},
};
use quota_gate_axum::AnswerCost;

/// The longest answer in one piece that is read; longer ones pass, and count no tokens.
const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why no more of an answer comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the upstream broke off: {0}")]
    BrokeOff(#[from] hyper::Error),
    #[error("the upstream sent nothing for {0:?}")]
    Stalled(Duration),
}

impl From<StreamError> for Problem {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::BrokeOff(_) => {
                Self::new(Code::UpstreamFailed, "the model broke off before it said anything; nothing was charged")
            }
            StreamError::Stalled(_) => Self::new(Code::UpstreamTimeout, "the model says nothing; nothing was charged"),
        }
    }
}

/// A body that says to [`AnswerCost`] what passes through it.
pub(crate) struct MeteredStream {
    inner: Incoming,
    reading: Reading,
    plan: Plan,
    answer_cost: AnswerCost,
    ended: bool,
    has_content: bool,
    /// What came before the head went out.
    first: Option<Bytes>,
    broken: Option<StreamError>,
    idle_timeout: Duration,
    idle: Pin<Box<Sleep>>,
    /// One of those for requests at work at the upstream.
    _permit: Arc<OwnedSemaphorePermit>,
}

enum Reading {
    Events(Events),
    Whole(BytesMut),
    /// It is compressed, or too long.
    Nothing,
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Events,
    Whole,
    Unreadable,
}

impl MeteredStream {
    pub(crate) fn new(
        inner: Incoming,
        (form, plan): (Form, Plan),
        answer_cost: AnswerCost,
        idle_timeout: Duration,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Self {
        let reading = match form {
            Form::Events => {
                // The first events only say who speaks.
                answer_cost.preamble();
                Reading::Events(Events::default())
            }
            Form::Whole => Reading::Whole(BytesMut::new()),
            Form::Unreadable => Reading::Nothing,
        };
        let idle = Box::pin(tokio::time::sleep(idle_timeout));
        Self {
            inner,
            reading,
            plan,
            answer_cost,
            ended: false,
            has_content: false,
            first: None,
            broken: None,
            idle_timeout,
            idle,
            _permit: permit,
        }
    }

    /// Waits for the first piece. If none comes, the client can still be told properly.
    pub(crate) async fn begun(mut self) -> Result<Self, StreamError> {
        if let Some(frame) = self.frame().await {
            self.first = frame?.into_data().ok();
        }
        Ok(self)
    }

    /// What goes on to the client of a piece that came.
    fn pass(&mut self, piece: Bytes) -> Bytes {
        let Self { reading, plan, answer_cost, ended, has_content, .. } = self;
        match reading {
            Reading::Events(events) => events.pass(&piece, |event| {
                let said = of_event(plan.api, event);
                hear(said, answer_cost, ended, has_content);
                !(plan.hides_usage && said.only_usage)
            }),
            Reading::Whole(whole) => {
                whole.extend_from_slice(&piece);
                if whole.len() > WHOLE_BYTES_MAX {
                    *reading = Reading::Nothing;
                }
                piece
            }
            Reading::Nothing => piece,
        }
    }

    /// The body has ended well; has the answer? What is left of it goes on to the client.
    fn end(&mut self) -> Bytes {
        match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Events(mut events) => {
                let rest = events.rest();
                let said = of_event(self.plan.api, &rest);
                hear(said, &self.answer_cost, &mut self.ended, &mut self.has_content);
                if !self.ended {
                    self.answer_cost.broke_off();
                }
                rest
            }
            Reading::Whole(whole) => {
                let said = of_whole(&whole);
                hear(said, &self.answer_cost, &mut self.ended, &mut self.has_content);
                if said.end != Some(End::Complete) {
                    // An error with a good status, or no JSON at all.
                    self.answer_cost.preamble();
                    self.answer_cost.broke_off();
                }
                Bytes::new()
            }
            Reading::Nothing => Bytes::new(),
        }
    }

    /// The body broke. The server would close the connection at once, with what it has not sent yet; so it hears of it later.
    fn break_off<T>(&mut self, error: StreamError, context: &Context<'_>) -> Poll<T> {
        if matches!(self.reading, Reading::Whole(_)) {
            // Half of a JSON document.
            self.answer_cost.preamble();
        }
        metrics::counter!("quota_gate_upstream_broken_answers_total").increment(1);
        tracing::warn!(%error, "an answer breaks off");
        self.broken = Some(error);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn hear(said: EventSummary, answer_cost: &AnswerCost, ended: &mut bool, has_content: &mut bool) {
    // Whoever says nothing, and says that this was all, has answered.
    if (said.content || said.end == Some(End::Complete)) && !*has_content {
        *has_content = true;
        answer_cost.content_begins();
    }
    if let Some(tokens) = said.tokens {
        answer_cost.set_tokens(tokens);
    }
    if said.end == Some(End::Failed) {
        answer_cost.broke_off();
    }
    *ended |= said.end.is_some();
}

impl Body for MeteredStream {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
                ready!(self.idle.as_mut().poll(context));
                let stalled = StreamError::Stalled(self.idle_timeout);
                return self.break_off(stalled, context);
            };
            let next = Instant::now() + self.idle_timeout;
            self.idle.as_mut().reset(next);
            let passed = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => self.pass(piece),
                    // Trailers hold for one connection only.
                    Err(_) => continue,
                },
                Some(Err(error)) => return self.break_off(error.into(), context),
                None => {
                    let rest = self.end();
                    if rest.is_empty() {
                        return Poll::Ready(None);
                    }
                    rest
                }
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }
}
