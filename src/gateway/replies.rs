//! The answers that leave the gateway: Iluma's own answers, answers from the cache, and answers of shared calls.

use super::fetch_result::FetchResult;
use super::request_log::RequestLog;
use crate::base::saved::Saved;
use crate::cache::{Hit, Report};
use crate::iluma::route_name::RouteName;
use crate::reference::{self, PrefixStripper};
use crate::reply::{self, Rejection, ReplyBody};
use crate::telemetry::CacheOutcome;
use crate::upstream::{self, AnswerBody, CallError, Collected, Credential};
use bytes::Bytes;
use http::header::{self, ACCEPT_ENCODING, AGE, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use std::sync::Arc;
use std::time::Duration;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Passes Iluma's answer on as it arrives. An encoded error answer is read whole first, to remove the account's key.
pub(super) async fn passed_on(
    mut response: Response<AnswerBody>,
    credential: &Arc<Credential>,
    total: Duration,
) -> Result<Response<ReplyBody>, Rejection> {
    reference::forwardable_response(response.headers_mut());
    let failure = response.status().is_client_error() || response.status().is_server_error();
    if failure && response.body().is_encoded() {
        // An error may quote the account's key, which can't be found in an encoded body.
        let status = response.status();
        return match Box::pin(upstream::collect(response, Some(credential), total)).await {
            Ok(answer) => Ok(of_parts(answer.status, answer.headers, ReplyBody::full(answer.body))),
            Err(CallError::Garbled) => Ok(reply::unreadable(status)),
            Err(error) => Err(error.into()),
        };
    }
    Ok(response.map(|body| ReplyBody::Upstream(Box::new(body))))
}

/// Builds a response from its parts.
pub(super) fn of_parts(status: StatusCode, headers: http::HeaderMap, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Removes the body, to answer a HEAD request. The header fields stay as for GET, `content-length` included.
pub(super) fn remove_body(response: &mut Response<ReplyBody>) {
    if !response.headers().contains_key(CONTENT_LENGTH)
        && let Some(length) = response.body().size_hint().exact()
        && length > 0
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = reply::ReplyBody::empty();
}

/// Builds the reply from a cache entry.
pub(super) fn from_entry(
    hit: &Hit,
    reference: Option<&[u8]>,
    route: RouteName,
    log: &mut RequestLog,
) -> Response<ReplyBody> {
    // "Pending" is no result: the call of another request is still pending at Iluma.
    let pending = hit.entry.pending && route == RouteName::Bank;
    let (outcome, saved, report) = if pending {
        (CacheOutcome::Shared, Saved::Shared, Report::Pending)
    } else {
        (CacheOutcome::Hit, Saved::Hit, Report::Hit { ttl: hit.ttl })
    };
    log.cache = outcome;
    log.metrics().saved(route, saved);
    let mut response = stored(hit, reference, report);
    if !pending {
        response.headers_mut().insert(AGE, HeaderValue::from(hit.age.as_secs()));
    }
    response
}

/// Builds the reply from a stale cache entry.
pub(super) fn from_stale(
    hit: &Hit,
    reference: Option<&[u8]>,
    route: RouteName,
    log: &mut RequestLog,
) -> Response<ReplyBody> {
    log.cache = CacheOutcome::Stale;
    log.metrics().saved(route, Saved::Hit);
    let mut response = stored(hit, reference, Report::Stale { by: hit.age.saturating_sub(hit.entry.lifetime) });
    response.headers_mut().insert(AGE, HeaderValue::from(hit.age.as_secs()));
    response
}

fn stored(hit: &Hit, reference: Option<&[u8]>, report: Report) -> Response<ReplyBody> {
    let body = ReplyBody::full(hit.entry.body.with(reference));
    let mut response = bare(hit.entry.status, hit.entry.content_type.as_ref(), body);
    response.headers_mut().insert(CACHE_STATUS, report.header());
    response
}

/// Builds the reply to the request that made the call: Iluma's original answer.
pub(super) fn brought(
    fetched: &FetchResult,
    report: Report,
    outcome: CacheOutcome,
    log: &mut RequestLog,
) -> Response<ReplyBody> {
    log.cache = outcome;
    log.called(fetched.took, Some(fetched.answer.status.as_u16()));
    let body = ReplyBody::full(fetched.answer.body.clone());
    let mut response = of_parts(fetched.answer.status, fetched.answer.headers.clone(), body);
    response.headers_mut().insert(CACHE_STATUS, report.header());
    response
}

/// Builds the reply to a request that waited for another request's call. The reply has no data of that other request.
pub(super) fn collapsed(
    answer: &Collected,
    body: Bytes,
    route: RouteName,
    log: &mut RequestLog,
) -> Response<ReplyBody> {
    log.cache = CacheOutcome::Collapsed;
    log.metrics().saved(route, Saved::Collapsed);
    let mut response = bare(answer.status, answer.headers.get(CONTENT_TYPE), ReplyBody::full(body));
    response.headers_mut().insert(CACHE_STATUS, Report::Collapsed.header());
    response
}

fn bare(status: StatusCode, content_type: Option<&HeaderValue>, body: ReplyBody) -> Response<ReplyBody> {
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    of_parts(status, headers, body)
}

/// Returns true for a success or a 404. If such an answer has no record that the team may see, the team has no such
/// record. Returns false for any other status, which is a failure of Iluma.
pub(super) fn is_absent(answer: &Collected) -> bool {
    answer.status.is_success() || answer.status == StatusCode::NOT_FOUND
}

/// Builds Iluma's answer with another body.
pub(super) fn with_body(answer: Collected, body: Bytes) -> Response<ReplyBody> {
    let mut headers = answer.headers;
    reference::forget_body(&mut headers);
    of_parts(answer.status, headers, ReplyBody::full(body))
}

/// Builds the reply for Iluma's error, or for another text that is no record. The reply has the caller's own reference,
/// without the prefix.
pub(super) fn stripped(mut answer: Collected, stripper: &PrefixStripper) -> Response<ReplyBody> {
    stripper.head(&mut answer.headers);
    let body = stripper.error(&answer.body);
    with_body(answer, body)
}

/// Removes the request's headers that would make the answer specific to this caller, or unreadable. Asks for an answer
/// without a content encoding.
pub(super) fn readable(headers: &mut HeaderMap) {
    reference::forwardable_request(headers);
    for name in [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
        header::TE,
        header::TRAILER,
        // The body was read, and is sent in one piece.
        header::CONTENT_LENGTH,
    ] {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}
