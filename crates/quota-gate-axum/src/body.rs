//! The body of an answer. What was delivered of it decides what is charged.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{
    ClientGone,
    hold_guard::{HoldGuard, Share},
};

/// A body that settles its hold when it ends, breaks, or is dropped.
#[derive(Debug)]
pub struct MeteredBody {
    inner: Body,
    /// None after the settlement.
    hold: Option<HoldGuard>,
    delivered: u64,
    /// Length that the head declared, if it did.
    declared: Option<u64>,
    client_gone: ClientGone,
}

impl MeteredBody {
    pub(super) fn new(inner: Body, declared: Option<u64>, hold: HoldGuard, client_gone: ClientGone) -> Self {
        Self { inner, hold: Some(hold), delivered: 0, declared, client_gone }
    }

    /// Settles when all of it was delivered.
    fn complete(&mut self) {
        if self.hold.as_ref().is_some_and(HoldGuard::has_broken_off) {
            self.break_off();
        } else if let Some(hold) = self.hold.take() {
            hold.commit(None);
        }
    }

    /// Settles when no more of it will be delivered.
    fn break_off(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        match self.client_gone {
            // No content was delivered, so nothing is charged: dropping the hold releases it.
            _ if self.delivered == 0 || hold.is_preamble() => drop(hold),
            ClientGone::Release => drop(hold),
            ClientGone::Charge => hold.commit(None),
            ClientGone::Proportion => {
                let delivered = self.delivered;
                hold.commit(self.declared.map(|declared| Share { delivered, declared }));
            }
        }
    }
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.delivered += frame.data_ref().map_or(0, |data| data.len() as u64);
                // A caller that knows the length polls no frame after the last.
                if self.inner.is_end_stream() {
                    self.complete();
                }
            }
            Some(Err(_)) => self.break_off(),
            None => self.complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.complete();
        } else {
            self.break_off();
        }
    }
}
