//! The deadline of an answer's head, and the time limits for waits.

use super::error::CallError;
use super::outgoing::{Progress, Stage};
use crate::base::lazy_sleep::LazySleep;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The time limits of waits for Iluma.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// The time from the end of the request to the head of the answer.
    pub answer: Duration,
    /// The longest time without any progress of a body, in either direction.
    pub idle: Duration,
}

/// The deadline of an answer's head. While the client sends its body, the deadline is `Timeouts::idle` after the last
/// progress. Once the whole body was sent, it is `Timeouts::answer` later. The time starts when the request has its
/// connection, so time in a queue does not count.
pub(super) struct ResponseDeadline {
    progress: Option<Arc<Progress>>,
    timeouts: Timeouts,
    /// The time of the body's last progress, or of its end.
    since: Instant,
    seen: u64,
    sending: bool,
}

impl ResponseDeadline {
    pub(super) fn new(progress: Option<Arc<Progress>>, timeouts: Timeouts) -> Self {
        let sending = progress.is_some();
        Self { progress, timeouts, since: Instant::now(), seen: 0, sending }
    }

    /// Returns the answer if it has arrived. Without an answer, returns an error once the deadline has passed. Before
    /// the deadline, returns `Pending`, and the task is woken at the deadline.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        answered: Poll<T>,
        alarm: &mut LazySleep,
    ) -> Poll<Result<T, CallError>> {
        if let Poll::Ready(sent) = answered {
            return Poll::Ready(Ok(sent));
        }
        let stage = self.look();
        let timeout = if self.sending { self.timeouts.idle } else { self.timeouts.answer };
        if !alarm.poll(cx, self.since + timeout) {
            return Poll::Pending;
        }
        let client = self.sending && stage == Stage::Waiting;
        Poll::Ready(Err(if client { CallError::ClientTooSlow } else { CallError::TimedOut }))
    }

    /// Returns true if the client's body was cut off.
    pub(super) fn client_broke_off(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.stage() == Stage::Failed)
    }

    /// Moves the deadline if the body has made progress since the last call. Returns the body's stage.
    fn look(&mut self) -> Stage {
        let Some(progress) = &self.progress else { return Stage::Done };
        let (stage, bytes) = (progress.stage(), progress.bytes());
        let sending = stage != Stage::Done;
        if bytes != self.seen || sending != self.sending {
            (self.seen, self.sending, self.since) = (bytes, sending, Instant::now());
        }
        stage
    }
}
