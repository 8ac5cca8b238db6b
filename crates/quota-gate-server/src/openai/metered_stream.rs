//! The answer's body. It is read while it is streamed to the client: how many tokens it used, and how it ended.

use std::{
    pin::Pin,
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
    progress::Progress,
    request::Plan,
    usage::{End, summarize_event, summarize_whole},
};
use quota_gate_axum::AnswerCost;

/// Maximum size of an unstreamed answer that is read. A longer one passes unread: its tokens are not counted.
const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why an answer stopped.
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
                Self::new(Code::UpstreamFailed, "the model broke off before its answer began; nothing was charged")
            }
            StreamError::Stalled(_) => {
                Self::new(Code::UpstreamTimeout, "the model does not answer; nothing was charged")
            }
        }
    }
}

/// A body that records in [`AnswerCost`] what the client receives.
pub(crate) struct MeteredStream {
    inner: Incoming,
    reading: Reading,
    plan: Plan,
    progress: Progress,
    /// The first piece, which is read before the head is sent.
    first: Option<Bytes>,
    /// The error that the next poll returns.
    error: Option<StreamError>,
    idle_timeout: Duration,
    idle: Pin<Box<Sleep>>,
    /// Counts this request as in flight at the upstream.
    _permit: OwnedSemaphorePermit,
}

enum Reading {
    Events(Events),
    Whole(BytesMut),
    /// The body is compressed, or too long.
    Nothing,
}

/// The form of an answer.
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
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let mut progress = Progress::new(answer_cost);
        let reading = match form {
            Form::Events => Reading::Events(Events::default()),
            Form::Whole => Reading::Whole(BytesMut::new()),
            Form::Unreadable => Reading::Nothing,
        };
        if form != Form::Events {
            progress.content();
        }
        let idle = Box::pin(tokio::time::sleep(idle_timeout));
        Self { inner, reading, plan, progress, first: None, error: None, idle_timeout, idle, _permit: permit }
    }

    /// Waits for the first piece. If it does not arrive, the client can still get an error status.
    pub(crate) async fn with_first_piece(mut self) -> Result<Self, StreamError> {
        if let Some(frame) = self.frame().await {
            self.first = frame?.into_data().ok();
        }
        Ok(self)
    }

    /// Reads a piece and returns the part of it that the client gets.
    fn pass(&mut self, piece: Bytes) -> Bytes {
        let Self { reading, plan, progress, .. } = self;
        match reading {
            Reading::Events(events) => events.pass(&piece, |event| {
                let summary = summarize_event(plan.api, event);
                progress.record(summary);
                !(plan.drops_usage && summary.only_usage)
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

    /// Handles the end of the body: checks whether the answer is complete, and returns the rest for the client.
    fn end(&mut self) -> Bytes {
        match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Events(mut events) => {
                let rest = events.rest();
                self.progress.record(summarize_event(self.plan.api, &rest));
                self.progress.end();
                rest
            }
            Reading::Whole(whole) => {
                let summary = summarize_whole(&whole);
                self.progress.record(summary);
                if summary.end != Some(End::Finished) || !summary.begins {
                    // An error with a success status, unfinished, empty, or not JSON.
                    self.progress.fail_whole();
                }
                Bytes::new()
            }
            Reading::Nothing => Bytes::new(),
        }
    }

    /// Handles a body that broke off. The next poll returns the error: on an error the server closes the connection and
    /// drops the pieces that it has not sent yet.
    fn break_off<T>(&mut self, error: StreamError, context: &Context<'_>) -> Poll<T> {
        if matches!(self.reading, Reading::Whole(_)) {
            // The client cannot use a part of a JSON document.
            self.progress.fail_whole();
        }
        metrics::counter!("quota_gate_upstream_broken_answers_total").increment(1);
        tracing::warn!(%error, "an answer breaks off");
        self.error = Some(error);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Body for MeteredStream {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(error) = self.error.take() {
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
                    // Trailers are valid for one connection only.
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
