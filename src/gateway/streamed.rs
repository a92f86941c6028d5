//! Rows that are not cached: both bodies are streamed.

use super::exchange::Exchange;
use super::replies::passed_on;
use crate::iluma::routes::References;
use crate::reference::{self, SealedBody};
use crate::reply::{Rejection, ReplyBody};
use crate::upstream::{Outgoing, OutgoingBody};
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

/// Streams a request to Iluma and the answer back.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    forward(&mut exchange, request).await
}

/// Streams a request to Iluma and the answer back.
pub(super) async fn forward(
    exchange: &mut Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let (mut parts, body) = request.into_parts();
    let (name, target, repeatable) = (exchange.route.name, exchange.route.target.clone(), exchange.route.repeatable);
    let mut outcome = None;
    let body = match exchange.prefix() {
        // A reference passes as it is: with another team's prefix it would be that team's.
        Some((prefix, prefixes)) if name.spec().references == References::Checked => {
            reference::screen_target(&target, &prefix, prefixes)?;
            if body.is_end_stream() {
                OutgoingBody::Empty
            } else {
                let screened = SealedBody::screen(&parts.headers, body, &prefix, prefixes)?;
                outcome = Some(screened.outcome());
                OutgoingBody::filtered(screened, reference::forwardable_trailers)
            }
        }
        _ => OutgoingBody::stream(body, reference::forwardable_trailers),
    };
    reference::forwardable_request(&mut parts.headers);
    let outgoing = Outgoing { method: parts.method, target, headers: parts.headers, body, repeatable };
    exchange.log.upload(outgoing.body.progress());
    let sent = exchange.send(name, outgoing).await;
    // A body that was refused also breaks the call off: the refusal is the reason.
    if let Some(Err(error)) = outcome.and_then(|outcome| outcome.result()) {
        return Err(error.into());
    }
    passed_on(sent?, &exchange.account().credential, exchange.config.upstream.timeouts().answer).await
}
