//! One request and the head of its answer, on one connection.

use super::connection::{Http1, Http2, Http2Sender, Pooled};
use super::deadline::{ResponseDeadline, Timeouts};
use super::error::CallError;
use super::origin::Origin;
use super::outgoing::{Outgoing, OutgoingBody};
use super::replay::Replay;
use crate::base::lazy_sleep::LazySleep;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

/// The body of an answer, with the h1 or h2 connection on which it arrives.
pub(super) enum Source {
    Http1(Incoming, Box<Http1>),
    /// The `Arc` counts as a request on the connection until it is dropped with the body.
    Http2(Incoming, Arc<Http2>),
}

/// The failure of a request before the head of its answer.
pub(super) struct Failed {
    pub(super) outcome: SendOutcome,
    /// The request, if it can be sent again.
    pub(super) request: Option<Box<Outgoing>>,
}

/// The outcome of a request without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendOutcome {
    /// No byte of the request left this process.
    Unsent,
    /// Upstream proved that it processed nothing of the request.
    NotProcessed,
    /// Iluma may have processed some of the request.
    Sent(CallError),
}

type Sent = Result<Response<Incoming>, TrySendError<Request<OutgoingBody>>>;

/// Sends a request over a connection and waits for the head of the answer.
pub(super) async fn exchange(
    pooled: Pooled,
    mut request: Outgoing,
    origin: &Origin,
    timeouts: Timeouts,
) -> Result<(Parts, Source), Failed> {
    let repeatable = request.repeatable;
    let mut deadline = ResponseDeadline::new(request.body.progress(), timeouts);
    match pooled {
        Pooled::Http1 { mut connection, fresh } => {
            // A kept connection may close just when it is used again. With h1 Iluma can't prove that it processed
            // nothing, so a copy for another send is made only if the request is harmless.
            let again = if fresh { None } else { request.again() };
            let mut answer = pin!(connection.sender.try_send_request(request.into_http1(origin)));
            // Driving the connection brings the answer, and registers this task for a wake-up. A second wake-up by the
            // answer's future would be useless.
            let sent = poll_fn(|cx| {
                connection.drive(cx);
                let mut unwoken = Context::from_waker(Waker::noop());
                deadline.poll(cx, answer.as_mut().poll(&mut unwoken), &mut connection.alarm)
            });
            let (head, body) = finish(sent.await, &deadline, repeatable, || again)?.into_parts();
            Ok((head, Source::Http1(body, connection)))
        }
        Pooled::Http2 { connection, .. } => {
            let replay = Replay::of(&mut request);
            let sent = http2(&mut connection.sender.clone(), request.into_http2(origin), &mut deadline).await;
            let finished = finish(sent, &deadline, repeatable, || replay.into_request());
            if let Err(Failed { outcome: SendOutcome::Sent(CallError::TimedOut) | SendOutcome::NotProcessed, .. }) =
                &finished
            {
                connection.retire();
            }
            let (head, body) = finished?.into_parts();
            Ok((head, Source::Http2(body, connection)))
        }
    }
}

async fn http2(
    sender: &mut Http2Sender,
    request: Request<OutgoingBody>,
    deadline: &mut ResponseDeadline,
) -> Result<Sent, CallError> {
    let mut answer = pin!(sender.try_send_request(request));
    let mut alarm = LazySleep::default();
    poll_fn(|cx| {
        let answered = answer.as_mut().poll(cx);
        deadline.poll(cx, answered, &mut alarm)
    })
    .await
}

/// Returns the answer, or the failure of the request. `again` makes a copy of the request for another send; it returns
/// `None` if there can be no copy.
fn finish(
    sent: Result<Sent, CallError>,
    deadline: &ResponseDeadline,
    repeatable: bool,
    again: impl FnOnce() -> Option<Outgoing>,
) -> Result<Response<Incoming>, Failed> {
    let outcome = match sent {
        Ok(Ok(response)) => match checked(response) {
            Ok(response) => return Ok(response),
            Err(error) => SendOutcome::Sent(error),
        },
        Ok(Err(mut failure)) => {
            if let Some(request) = failure.take_message() {
                let request = Box::new(Outgoing::from_request(request, repeatable));
                return Err(Failed { outcome: SendOutcome::Unsent, request: Some(request) });
            }
            outcome(failure.error(), deadline)
        }
        Err(error) => SendOutcome::Sent(error),
    };
    let request = match outcome {
        SendOutcome::NotProcessed | SendOutcome::Sent(CallError::Broken) => again().map(Box::new),
        SendOutcome::Unsent | SendOutcome::Sent(_) => None,
    };
    Err(Failed { outcome, request })
}

/// Makes an answer fit to be passed on: removes a `content-length` that `transfer-encoding` overrides. Returns an error
/// for a status from 100 to 199.
fn checked(mut response: Response<Incoming>) -> Result<Response<Incoming>, CallError> {
    // A status from 100 to 199 is no final answer; 101 was not requested.
    if response.status().is_informational() {
        return Err(CallError::Garbled);
    }
    // The transfer encoding overrides the length, which is wrong then (RFC 9112, section 6.3).
    if response.headers().contains_key(TRANSFER_ENCODING) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    Ok(response)
}

fn outcome(error: &hyper::Error, deadline: &ResponseDeadline) -> SendOutcome {
    if deadline.client_broke_off() {
        SendOutcome::Sent(CallError::ClientCutOff)
    } else if proves_unprocessed(error) {
        SendOutcome::NotProcessed
    } else if error.is_parse() {
        SendOutcome::Sent(CallError::Garbled)
    } else {
        SendOutcome::Sent(CallError::Broken)
    }
}

/// Returns true if the protocol proves that Iluma processed nothing of a request: REFUSED_STREAM, or a GOAWAY with a
/// stream id below the request's (RFC 9113, section 8.7). A GOAWAY does not end requests with ids up to the one that it
/// names.
fn proves_unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else { return false };
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}
