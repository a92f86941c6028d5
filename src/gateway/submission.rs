//! The handler of a submission, which makes a record or repeats one.
//!
//! The submission's reference gets the prefix, and the team becomes an owner of Iluma's record.

use super::call_reference::CallReference;
use super::exchange::Exchange;
use super::owners::Owned;
use super::received::Received;
use super::replies::{of_parts, stripped, with_body};
use super::streamed::scanned;
use crate::base::json_template::Absent;
use crate::reference::{
    self, BodyError, EncodedBody, FilteredBody, FingerprintedBody, Kind, Outcome, PrefixStripper, Record,
    ReferencePrefix, ReferencePrefixes, RequestContent,
};
use crate::reply::{Rejection, ReplyBody};
use crate::upstream::{Collected, Outgoing, OutgoingBody};
use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use std::sync::Arc;

/// Sends a submission to Iluma, and makes the team an owner of its record.
pub(super) async fn serve(
    exchange: &mut Exchange<'_>,
    request: Request<FingerprintedBody<Incoming>>,
) -> Result<Response<ReplyBody>, Rejection> {
    let is_anew = exchange.route.record.is_some();
    // A repetition is answered from state: its record was checked the first time.
    let checks_owner = is_anew && !exchange.is_repetition();
    if checks_owner && let Some(failure) = exchange.check_owner().await? {
        return Ok(failure);
    }
    let (mut parts, body) = request.into_parts();
    let prefix = exchange.prefix().map(|(prefix, _)| prefix);
    let Prepared { target, body, mut reference, outcome } = match prefix {
        Some(prefix) => prepare(exchange, prefix, &mut parts.headers, body).await?,
        None => {
            let (prefix, prefixes) = exchange.prefixes();
            let target = exchange.route.target.clone();
            reference::scan_query(&target, &prefix, prefixes)?;
            let (body, outcome) = scanned(&parts.headers, body, (&prefix, prefixes), EncodedBody::Decoded)?;
            Prepared { target, body, reference: None, outcome }
        }
    };
    reference::forwardable_request(&mut parts.headers);
    parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    exchange.call = match (exchange.prefix(), &outcome) {
        (Some((prefix, _)), Some(outcome)) => CallReference::Streamed(prefix, Arc::clone(outcome)),
        (prefix, _) => CallReference::of(prefix.map(|(prefix, _)| prefix).as_ref(), reference.as_deref()),
    };
    let repeatable = exchange.route.repeatable;
    let outgoing = Outgoing { method: parts.method, target, headers: parts.headers, body, repeatable };
    exchange.log.upload(outgoing.body.progress());
    let sent = exchange.send_own(exchange.route.name, outgoing).await;
    let received = match (sent, outcome.as_ref().and_then(|outcome| outcome.result())) {
        // A refused body also breaks the call. The client gets the refusal, not the error of the call.
        (_, Some(Err(error))) => return Err(error.into()),
        (sent, given) => {
            reference = given.and_then(Result::ok).flatten().or(reference);
            sent?
        }
    };
    match exchange.prefix() {
        Some((prefix, prefixes)) => answered(exchange, received, reference, (prefix, prefixes)).await,
        None => answered_unprefixed(exchange, received).await,
    }
}

/// A submission that is ready to be sent.
struct Prepared {
    target: PathAndQuery,
    body: OutgoingBody,
    /// The caller's reference, as JSON text.
    reference: Option<Bytes>,
    /// The result of rewriting or scanning the body while it is streamed.
    outcome: Option<Arc<Outcome>>,
}

/// Makes a submission ready: adds the prefix to the reference, in the body or the query.
async fn prepare(
    exchange: &mut Exchange<'_>,
    prefix: ReferencePrefix,
    headers: &mut HeaderMap,
    body: FingerprintedBody<Incoming>,
) -> Result<Prepared, Rejection> {
    let is_anew = exchange.route.record.is_some();
    if body.is_end_stream() {
        // The prefix is added to the body. Without a body a new record would have no owner.
        if !is_anew {
            return Err(BodyError::Malformed.into());
        }
        let target = exchange.route.target.clone();
        return Ok(Prepared { target, body: OutgoingBody::Empty, reference: None, outcome: None });
    }
    // A repeated record keeps its reference.
    let absent = if is_anew { Absent::Leave } else { Absent::Insert };
    let (target, in_query) = prefix.target(&exchange.route.target, Absent::Leave)?;
    let prepared = match Kind::of(headers)? {
        Kind::Multipart(boundary) => {
            let body = FilteredBody::prefix(body, &boundary, prefix, absent);
            let outcome = Some(body.outcome());
            let body = OutgoingBody::filtered(body, reference::forwardable_trailers);
            Prepared { target, body, reference: in_query, outcome }
        }
        Kind::Json | Kind::Form => {
            let body = exchange.read(body).await?;
            let content = RequestContent::parse(headers, &body)?;
            let reference = content.only_reference(in_query)?;
            let body = OutgoingBody::Full(content.prefixed(&prefix, absent).or(Some(body)));
            Prepared { target, body, reference, outcome: None }
        }
    };
    reference::forget_body(headers);
    Ok(prepared)
}

/// Builds the answer for an account that prefixes references, and makes the team an owner of the record.
async fn answered(
    exchange: &Exchange<'_>,
    received: Received,
    reference: Option<Bytes>,
    (prefix, prefixes): (ReferencePrefix, &ReferencePrefixes),
) -> Result<Response<ReplyBody>, Rejection> {
    let text = reference.as_deref().and_then(reference::reference_text);
    let stripper = PrefixStripper::new(prefix, text.as_deref());
    let made = Record::of_answer(&received.answer, prefixes).filter(|_| received.is_success());
    let Some(made) = made else { return Ok(stripped(received.collected, &stripper)) };
    if let Some(id) = &made.id {
        let tags: Vec<_> = received.answer.persons().iter().copied().collect();
        // A recapture's record has the reference of its first submission.
        let known = made.reference.clone().filter(|_| made.prefixed_by.is_some()).or(reference.clone());
        let owned = Owned { id, reference: known.as_deref(), awaits: true, tags: &tags };
        exchange.gateway.owners.own(&exchange.requester(), owned, &exchange.log.redis).await;
    }
    let body = stripper.success(made.made_with(reference.as_deref()));
    let mut collected = received.collected;
    stripper.head(&mut collected.headers);
    Ok(with_body(collected, body))
}

/// Builds the answer for an account that does not prefix references, and makes the team an owner of the record. Only
/// state knows the owner then, because the reference does not name the team.
async fn answered_unprefixed(exchange: &Exchange<'_>, received: Received) -> Result<Response<ReplyBody>, Rejection> {
    let none = ReferencePrefixes::of([]);
    if let Some(Record { id: Some(id), reference, .. }) =
        Record::of_answer(&received.answer, &none).filter(|_| received.is_success())
    {
        let tags: Vec<_> = received.answer.persons().iter().copied().collect();
        let owned = Owned { id: &id, reference: reference.as_deref(), awaits: true, tags: &tags };
        exchange.gateway.owners.own(&exchange.requester(), owned, &exchange.log.redis).await;
    }
    let Collected { status, headers, body } = received.collected;
    Ok(of_parts(status, headers, ReplyBody::full(body)))
}
