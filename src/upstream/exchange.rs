//! One request and the head of its answer, on one connection.

use super::connect::{Http2Sender, Origin};
use super::outgoing::{Outgoing, OutgoingBody, Progress, Stage};
use super::pool::{Http1, Http2, Pooled};
use super::{CallError, Timeouts};
use crate::base::lazy_sleep::LazySleep;
use http::response::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::time::Instant;

/// An answer's body, with the connection it comes on where that serves nobody else.
pub(super) enum Source {
    Http1(Incoming, Box<Http1>),
    /// The share in the connection counts until the body is done.
    Http2(Incoming, Arc<Http2>),
}

/// Why there is no head of an answer.
pub(super) enum Failed {
    /// No byte of the request left; here it is.
    Unsent(Box<Outgoing>),
    /// Some of it may have.
    Sent(CallError),
}

type Sent = Result<Response<Incoming>, TrySendError<Request<OutgoingBody>>>;

pub(super) async fn exchange(
    pooled: Pooled,
    request: Outgoing,
    origin: &Origin,
    timeouts: Timeouts,
) -> Result<(Parts, Source), Failed> {
    let repeatable = request.repeatable;
    let mut patience = ResponseDeadline::new(request.body.progress(), timeouts);
    match pooled {
        Pooled::Http1 { mut connection, .. } => {
            let mut answer = pin!(connection.sender.try_send_request(request.into_http1(origin)));
            // The answer comes by driving the connection and no other way, so its own wake-up would only be one more.
            let sent = poll_fn(|cx| {
                connection.drive(cx);
                let mut unwoken = Context::from_waker(Waker::noop());
                patience.poll(cx, answer.as_mut().poll(&mut unwoken), &mut connection.alarm)
            });
            let (head, body) = finish(sent.await, &patience, repeatable)?.into_parts();
            Ok((head, Source::Http1(body, connection)))
        }
        Pooled::Http2 { connection, .. } => {
            let sent = http2(&mut connection.sender.clone(), request.into_http2(origin), &mut patience).await;
            if matches!(sent, Err(CallError::TimedOut)) {
                connection.suspect();
            }
            let (head, body) = finish(sent, &patience, repeatable)?.into_parts();
            Ok((head, Source::Http2(body, connection)))
        }
    }
}

async fn http2(
    sender: &mut Http2Sender,
    request: Request<OutgoingBody>,
    patience: &mut ResponseDeadline,
) -> Result<Sent, CallError> {
    let mut answer = pin!(sender.try_send_request(request));
    let mut alarm = LazySleep::default();
    poll_fn(|cx| {
        let answered = answer.as_mut().poll(cx);
        patience.poll(cx, answered, &mut alarm)
    })
    .await
}

fn finish(
    sent: Result<Sent, CallError>,
    patience: &ResponseDeadline,
    repeatable: bool,
) -> Result<Response<Incoming>, Failed> {
    sent.map_err(Failed::Sent)?.map_err(|mut failure| match failure.take_message() {
        Some(request) => Failed::Unsent(Box::new(Outgoing::from_request(request, repeatable))),
        None => Failed::Sent(patience.blame(failure.error())),
    })
}

/// How long an answer is waited for: while the client sends its body, as long as that moves; then as long as
/// upstream is given.
struct ResponseDeadline {
    progress: Option<Arc<Progress>>,
    timeouts: Timeouts,
    /// When the body last moved, or was done.
    since: Instant,
    seen: u64,
    sending: bool,
}

impl ResponseDeadline {
    fn new(progress: Option<Arc<Progress>>, timeouts: Timeouts) -> Self {
        let sending = progress.is_some();
        Self { progress, timeouts, since: Instant::now(), seen: 0, sending }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        answered: Poll<Sent>,
        alarm: &mut LazySleep,
    ) -> Poll<Result<Sent, CallError>> {
        if let Poll::Ready(sent) = answered {
            return Poll::Ready(Ok(sent));
        }
        let stage = self.look();
        let patience = if self.sending { self.timeouts.idle } else { self.timeouts.answer };
        if !alarm.poll(cx, self.since + patience) {
            return Poll::Pending;
        }
        let client = self.sending && stage == Stage::Waiting;
        Poll::Ready(Err(if client { CallError::ClientTooSlow } else { CallError::TimedOut }))
    }

    /// Notes whether the body has moved since the last look.
    fn look(&mut self) -> Stage {
        let Some(progress) = &self.progress else { return Stage::Done };
        let (stage, bytes) = (progress.stage(), progress.bytes());
        let sending = stage != Stage::Done;
        if bytes != self.seen || sending != self.sending {
            (self.seen, self.sending, self.since) = (bytes, sending, Instant::now());
        }
        stage
    }

    fn blame(&self, error: &hyper::Error) -> CallError {
        let failed = self.progress.as_ref().is_some_and(|progress| progress.stage() == Stage::Failed);
        if failed {
            CallError::ClientCutOff
        } else if error.is_parse() {
            CallError::Garbled
        } else {
            CallError::Broken
        }
    }
}
