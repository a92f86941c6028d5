//! Rows that are not cached: both bodies are streamed.

use super::exchange::Exchange;
use super::replies::{of_parts, passed_on};
use crate::iluma::route_name::RouteName;
use crate::reference::{
    self, BodyError, EncodedBody, FilteredBody, FingerprintedBody, Outcome, ReferencePrefix, ReferencePrefixes,
};
use crate::reply::{Rejection, ReplyBody};
use crate::upstream::{Collected, Outgoing, OutgoingBody};
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use std::sync::Arc;

/// Streams a request to Iluma and the answer back.
pub(super) async fn forward(
    exchange: &mut Exchange<'_>,
    request: Request<FingerprintedBody<Incoming>>,
) -> Result<Response<ReplyBody>, Rejection> {
    let (mut parts, body) = request.into_parts();
    let (name, target, repeatable) = (exchange.route.name, exchange.route.target.clone(), exchange.route.repeatable);
    // A reference passes unchanged, so it must not have another team's prefix.
    let (prefix, prefixes) = exchange.prefixes();
    reference::scan_query(&target, &prefix, prefixes)?;
    // An unknown row could take references in a body of any kind.
    let encoded = if name == RouteName::Other { EncodedBody::Refused } else { EncodedBody::Decoded };
    let (body, outcome) = scanned(&parts.headers, body, (&prefix, prefixes), encoded)?;
    reference::forwardable_request(&mut parts.headers);
    // An answer that is stored for repetitions is read, so it must not be encoded.
    let is_kept = exchange.idempotency.is_some();
    if is_kept {
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let outgoing = Outgoing { method: parts.method, target, headers: parts.headers, body, repeatable };
    exchange.log.upload(outgoing.body.progress());
    // A refused body also breaks the call. The client gets the refusal, not the error of the call.
    let refusal = || outcome.and_then(|outcome| outcome.result()).and_then(Result::err);
    if is_kept {
        let sent = exchange.send_own(name, outgoing).await;
        refusal().map_or(Ok(()), Err)?;
        let Collected { status, headers, body } = sent?.collected;
        return Ok(of_parts(status, headers, ReplyBody::full(body)));
    }
    let sent = exchange.send(name, outgoing).await;
    refusal().map_or(Ok(()), Err)?;
    passed_on(sent?, &exchange.account().credential, exchange.config.upstream.timeouts().answer).await
}

/// Returns the body for Iluma, and the outcome of its scan. The body ends with an error at a reference with another
/// team's prefix. The outcome is `None` for an empty body.
pub(super) fn scanned(
    headers: &HeaderMap,
    body: FingerprintedBody<Incoming>,
    (prefix, prefixes): (&ReferencePrefix, &ReferencePrefixes),
    encoded: EncodedBody,
) -> Result<(OutgoingBody, Option<Arc<Outcome>>), BodyError> {
    if body.is_end_stream() {
        return Ok((OutgoingBody::Empty, None));
    }
    let scanned = FilteredBody::scan(headers, body, prefix, prefixes, encoded)?;
    let outcome = scanned.outcome();
    Ok((OutgoingBody::filtered(scanned, reference::forwardable_trailers), Some(outcome)))
}
