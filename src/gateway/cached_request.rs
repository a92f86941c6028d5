//! Bank and watchlist requests: answered from the cache, from a call in flight, or by a new call to Iluma.

use super::call_reference::CallReference;
use super::exchange::Exchange;
use super::fetch_request::FetchRequest;
use super::persons_in::persons_in;
use super::replies::{CACHE_STATUS, from_entry, passed_on};
use super::shared_head::SharedHead;
use crate::base::json_template::Absent;
use crate::cache::{Report, Scope, Subject};
use crate::iluma::routes::References;
use crate::reference::{
    Ambiguity, BodyError, Directives, ReferencePrefix, ReferencePrefixes, RequestContent, reference_text, scan_body,
    scan_query,
};
use crate::reply::{Rejection, ReplyBody};
use crate::telemetry::CacheOutcome;
use crate::tenant::Tenant;
use crate::upstream::{Outgoing, OutgoingBody};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

const NO_STORE: &str = "no-store";

/// Answers a bank or watchlist request.
pub(super) async fn serve(
    exchange: &mut Exchange<'_>,
    (request, subject): (Request<Incoming>, Subject),
) -> Result<Response<ReplyBody>, Rejection> {
    let (parts, body) = request.into_parts();
    let body = exchange.read(body).await?;
    let is_prefixed = exchange.route.name.spec().references == References::Prefixed;
    let parsed = RequestContent::parse(&parts.headers, &body);
    let (content, target) = if is_prefixed {
        prefixed(exchange, parsed?)?
    } else {
        (unprefixed(exchange, parsed, &parts.headers, &body)?, exchange.route.target.clone())
    };
    let directives = Directives::of(&parts.headers).at_most(exchange.tenant.max_age.of(subject));
    let head = SharedHead::of(&parts.headers, &exchange.config.forward_headers);
    let bypass = head.bypass.or_else(|| bypass(&content, directives));
    let gateway = exchange.gateway;
    if gateway.cache.is_behind() {
        Box::pin(gateway.cache.confirm(&exchange.log.redis)).await;
    }
    let scope = scope_of(exchange.tenant);
    let slot = gateway.cache.place(&scope, subject, exchange.route.target.as_str(), &content.parameters);
    let requester = is_prefixed.then(|| exchange.requester());
    // A hit ends here. The rest is large and waits for a call, so its futures are on the heap and do not slow down
    // hits.
    if bypass.is_none()
        && !directives.no_cache
        && let Some(hit) = gateway.cache.look_up(&slot, directives.max_age)
        && !hit.entry.pending
    {
        let reference = content.reference.as_deref();
        if let Some(requester) = &requester {
            gateway.own_hit(requester, &hit, reference, &exchange.log.redis).await;
        }
        return Ok(from_entry(&hit, reference, exchange.route.name, exchange.log));
    }
    tracing::debug!(
        bypass,
        no_cache = directives.no_cache,
        no_store = directives.no_store,
        "not answered from memory: bypassed for that reason, or the caller wants a fresh answer, or none is stored"
    );
    let headers = head.for_iluma();
    let tags = persons_in(&gateway.persons, parts.headers.get(CONTENT_TYPE), &body);
    let prefix = exchange.prefix().filter(|_| is_prefixed).map(|(prefix, _)| prefix);
    let with_prefix = prefix.as_ref().and_then(|prefix| content.prefixed(prefix, Absent::Insert));
    let body = with_prefix.or_else(|| content.body().cloned()).unwrap_or(body);
    let outgoing =
        Outgoing { method: parts.method, target, headers, body: OutgoingBody::Full(Some(body)), repeatable: false };
    if let Some(detail) = bypass.filter(|_| !is_prefixed) {
        return Box::pin(bypassed(exchange, outgoing, directives, detail)).await;
    }
    let reference = content.reference.as_deref().filter(|_| is_prefixed);
    let call = CallReference::of(prefix.as_ref(), reference);
    let request = Box::new(FetchRequest {
        slot,
        route: exchange.route.name,
        directives,
        reference: content.reference,
        tenant: Some(exchange.tenant.index),
        account: Some(exchange.tenant.account_index),
        outgoing,
        tags,
        requester,
        prefix,
        call,
        bypass,
    });
    Box::pin(gateway.fetch(exchange.config, request, exchange.log)).await
}

/// Returns the content of a request, with the reference from the body or from the query, and the target for Iluma. If
/// the account adds prefixes, a reference in the target's query has the tenant's prefix. If not, the target is
/// unchanged.
///
/// Refuses a request with a reference in both places. If the account adds no prefixes, also refuses a reference with
/// another team's prefix.
fn prefixed(exchange: &Exchange<'_>, mut content: RequestContent) -> Result<(RequestContent, PathAndQuery), Rejection> {
    let target = &exchange.route.target;
    let (own, prefixes) = exchange.prefixes();
    // Most requests have no query.
    let (prefixed, in_query) = match target.query() {
        Some(_) => own.target(target, Absent::Leave)?,
        None => (target.clone(), None),
    };
    content.reference = content.only_reference(in_query)?;
    if exchange.prefix().is_some() {
        return Ok((content, prefixed));
    }
    refuse_foreign(&content, &own, prefixes)?;
    Ok((content, target.clone()))
}

/// Returns the content of a request on a row that sends references unchanged. If the body can't be parsed, the content
/// is empty, and Iluma judges the body. Returns an error for a reference with another team's prefix, which is also
/// found in a body that can't be parsed.
fn unprefixed(
    exchange: &Exchange<'_>,
    parsed: Result<RequestContent, BodyError>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<RequestContent, BodyError> {
    let (own, prefixes) = exchange.prefixes();
    scan_query(&exchange.route.target, &own, prefixes)?;
    if let Ok(content) = parsed {
        refuse_foreign(&content, &own, prefixes)?;
        return Ok(content);
    }
    scan_body(headers, body, &own, prefixes)?;
    Ok(RequestContent::unreadable())
}

/// Returns an error if the reference of a parsed request begins with another team's prefix.
fn refuse_foreign(
    content: &RequestContent,
    own: &ReferencePrefix,
    prefixes: &ReferencePrefixes,
) -> Result<(), BodyError> {
    let text = content.reference.as_deref().and_then(reference_text);
    if text.is_some_and(|text| prefixes.is_foreign(own, &text)) { Err(BodyError::Foreign) } else { Ok(()) }
}

/// Makes a call that bypasses the cache, and streams its answer.
pub(super) async fn bypassed(
    exchange: &mut Exchange<'_>,
    outgoing: Outgoing,
    directives: Directives,
    detail: &'static str,
) -> Result<Response<ReplyBody>, Rejection> {
    if directives.only_if_cached {
        return Err(Rejection::OnlyIfCached);
    }
    exchange.log.cache = CacheOutcome::Bypass;
    let response = exchange.send(exchange.route.name, outgoing).await?;
    let total = exchange.config.upstream.timeouts().answer;
    let mut response = passed_on(response, &exchange.account().credential, total).await?;
    response.headers_mut().insert(CACHE_STATUS, Report::Bypass { detail }.header());
    Ok(response)
}

/// Returns the scope of a tenant's cache entries: the teams of its account that share the cache, or the tenant alone.
fn scope_of(tenant: &Tenant) -> Scope<'_> {
    if tenant.share_cache { Scope::shared(&tenant.account) } else { Scope::private(&tenant.account, &tenant.name) }
}

/// Returns the reason why the request bypasses the cache; `None` if it does not.
fn bypass(content: &RequestContent, directives: Directives) -> Option<&'static str> {
    match content.ambiguity {
        Some(Ambiguity::DuplicateMember) => Some("duplicate-member"),
        Some(Ambiguity::Nesting) => Some("nesting"),
        Some(Ambiguity::Unreadable) => Some("unreadable"),
        Some(Ambiguity::Charset) => Some("charset"),
        None => directives.no_store.then_some(NO_STORE),
    }
}
