//! The answer's body. It is read while it is streamed to the client: how many tokens it used, and how it ended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::http::HeaderMap;
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
    decoding::{Coding, Decoder},
    reading::{Reading, Unread},
    request::Plan,
    token_meter::TokenMeter,
};
use quota_gate_axum::AnswerCost;

/// Why an answer stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the upstream broke off: {0}")]
    BrokeOff(#[from] hyper::Error),
    #[error("the upstream sent nothing for {0:?}")]
    Stalled(Duration),
    #[error("the upstream's compression is damaged: {0}")]
    Damaged(#[from] io::Error),
    #[error("the upstream compresses an answer in a way that the gate cannot read")]
    Unreadable,
}

impl From<StreamError> for Problem {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::BrokeOff(_) | StreamError::Damaged(_) => {
                Self::new(Code::UpstreamFailed, "the model broke off before its answer began; nothing was charged")
            }
            StreamError::Stalled(_) => {
                Self::new(Code::UpstreamTimeout, "the model does not answer; nothing was charged")
            }
            StreamError::Unreadable => Self::upstream_unusable(
                "the model's answer is compressed in a way that the gate cannot read; nothing was charged",
            ),
        }
    }
}

/// A body that records in [`AnswerCost`] what the client receives.
pub(crate) struct MeteredStream {
    inner: Incoming,
    decoder: Decoder,
    /// The rest of a piece that is not decoded yet.
    undecoded: Bytes,
    reading: Reading,
    /// The first piece, which is read before the head is sent.
    first: Option<Bytes>,
    /// The error that the next poll returns.
    error: Option<StreamError>,
    idle_timeout: Duration,
    idle: Pin<Box<Sleep>>,
    /// Counts this request as in flight at the upstream.
    _permit: OwnedSemaphorePermit,
}

impl MeteredStream {
    pub(crate) fn new(
        (headers, inner): (&HeaderMap, Incoming),
        plan: Plan,
        (answer_cost, meter): (AnswerCost, Option<TokenMeter>),
        idle_timeout: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            inner,
            decoder: Decoder::new(Coding::of(headers)),
            undecoded: Bytes::new(),
            reading: Reading::new(plan, headers, answer_cost, meter),
            first: None,
            error: None,
            idle_timeout,
            idle: Box::pin(tokio::time::sleep(idle_timeout)),
            _permit: permit,
        }
    }

    /// Waits for the first piece. If it does not arrive, the client can still get an error status.
    pub(crate) async fn with_first_piece(mut self) -> Result<Self, StreamError> {
        if let Some(frame) = self.frame().await {
            self.first = frame?.into_data().ok();
        }
        // The event that reports usage cannot be removed.
        if self.is_encoded() && self.reading.hides_usage() { Err(StreamError::Unreadable) } else { Ok(self) }
    }

    /// Whether the client gets the body in the upstream's encoding.
    pub(crate) const fn is_encoded(&self) -> bool {
        self.decoder.is_opaque()
    }

    /// Decodes and reads some bytes. Returns the part of them that the client gets.
    fn pass(&mut self) -> io::Result<Bytes> {
        let piece = self.decoder.decode(&mut self.undecoded)?;
        if self.decoder.is_opaque() {
            self.reading.leave_unread(Unread::Encoding);
        }
        Ok(self.reading.pass(piece))
    }

    /// Handles the end of the body. Returns the rest for the client.
    fn end(&mut self) -> Bytes {
        let undecided = self.decoder.rest();
        let mut rest = BytesMut::from(self.reading.pass(undecided));
        rest.extend_from_slice(&self.reading.end());
        rest.freeze()
    }

    /// Handles a body that broke off. The next poll returns the error: on an error the server closes the connection and
    /// drops the pieces that it has not sent yet.
    fn break_off<T>(&mut self, error: StreamError, context: &Context<'_>) -> Poll<T> {
        self.reading.break_off();
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
            while !self.undecoded.is_empty() {
                match self.pass() {
                    Ok(passed) if passed.is_empty() => {}
                    Ok(passed) => return Poll::Ready(Some(Ok(Frame::data(passed)))),
                    Err(error) => return self.break_off(error.into(), context),
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
                ready!(self.idle.as_mut().poll(context));
                let stalled = StreamError::Stalled(self.idle_timeout);
                return self.break_off(stalled, context);
            };
            let next = Instant::now() + self.idle_timeout;
            self.idle.as_mut().reset(next);
            match frame {
                Some(Ok(frame)) => {
                    // Trailers are valid for one connection only.
                    if let Ok(piece) = frame.into_data() {
                        self.undecoded = piece;
                    }
                }
                Some(Err(error)) => return self.break_off(error.into(), context),
                None => {
                    let rest = self.end();
                    let is_over = rest.is_empty();
                    return Poll::Ready((!is_over).then(|| Ok(Frame::data(rest))));
                }
            }
        }
    }
}
