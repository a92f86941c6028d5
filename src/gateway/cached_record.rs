//! The handler of a GET of one bank request by its id.
//!
//! A final answer is cached. It replaces the answer "pending" that the cache has for the bank request. While the bank
//! request is pending, Iluma is polled at most once a second for its owners, unless a request asks for a call of its
//! own.

use super::call_reference::CallReference;
use super::exchange::Exchange;
use super::fetch_request::FetchRequest;
use super::fetch_result::{FetchResult, Joined};
use super::ownership::{Known, Seen};
use super::received::Received;
use super::replies::{brought, from_entry, is_absent, readable};
use crate::cache::{Report, Scope, Subject};
use crate::iluma::answer::Answer;
use crate::iluma::record_id;
use crate::reference::{self, Directives};
use crate::reply::{Rejection, ReplyBody};
use crate::telemetry::CacheOutcome;
use crate::upstream::Collected;
use http::{Request, Response};
use hyper::body::Incoming;

/// Answers with the record if the team owns it. Otherwise answers like for a record that does not exist.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
    subject: Subject,
) -> Result<Response<ReplyBody>, Rejection> {
    let (gateway, config) = (exchange.gateway, exchange.config);
    if gateway.cache.is_behind() {
        gateway.cache.confirm(&exchange.log.redis).await;
    }
    let mut headers = request.into_parts().0.headers;
    let directives = Directives::of(&headers).at_most(exchange.tenant.max_age.of(subject));
    let is_skipped = reference::is_magic(&headers) || directives.no_cache || directives.no_store;
    readable(&mut headers);
    let id = exchange.route.record.clone().ok_or(Rejection::Internal)?;
    let known = exchange.known_owner(&id).await;
    let (tenant, target) = (exchange.tenant, exchange.route.target.clone());
    let slot = gateway.cache.place(&Scope::shared(&tenant.account), subject, target.as_str(), &[]);
    let request = FetchRequest::get(slot, exchange.route.name, Some(tenant), directives, (target, headers));
    let request = Box::new(FetchRequest { call: CallReference::of_get(known.is_named()), ..request });
    let Known::Own(owner) = &known else {
        return unknown(exchange, request, &id, known).await;
    };
    let reference = owner.reference.as_deref();
    if !is_skipped && let Some(hit) = gateway.known(config, &request, directives.max_age, exchange.log).await {
        return Ok(from_entry(&hit, reference, exchange.route.name, exchange.log));
    }
    if directives.only_if_cached {
        return Err(Rejection::OnlyIfCached);
    }
    let (fetched, report, outcome) = if is_skipped {
        let fetched = gateway.alone(config, request, exchange.log).await?;
        let stored = fetched.is_stored();
        (fetched, Report::Directed { stored }, CacheOutcome::Request)
    } else {
        match gateway.join(config, request, exchange.log).await? {
            Joined::Hit(hit) => return Ok(from_entry(&hit, reference, exchange.route.name, exchange.log)),
            Joined::Led(fetched) => {
                let stored = fetched.is_stored();
                (fetched, Report::Miss { stored }, if stored { CacheOutcome::Stored } else { CacheOutcome::Miss })
            }
            Joined::Shared(fetched, _) => (fetched, Report::Collapsed, CacheOutcome::Collapsed),
        }
    };
    let is_record = fetched.id.as_deref().is_some_and(|own| record_id::is_named_by(own, &id));
    let body = fetched.shared.as_ref().filter(|_| is_record && fetched.answer.status.is_success());
    let seen = body.map_or(Seen::Nothing, |body| Seen::Own(body.with(reference)));
    let response = brought(&fetched, report, outcome, exchange.log);
    shown(&mut exchange, (&fetched, &known), seen, response)
}

/// Asks Iluma for a record that the team is not known to own. The answer never comes from memory, because a fast answer
/// would reveal that another team knows the id.
async fn unknown(
    mut exchange: Exchange<'_>,
    request: Box<FetchRequest>,
    id: &str,
    known: Known,
) -> Result<Response<ReplyBody>, Rejection> {
    if request.directives.only_if_cached {
        return Err(Rejection::OnlyIfCached);
    }
    let fetched = exchange.gateway.alone(exchange.config, request, exchange.log).await?;
    let answer = fetched.read.clone().unwrap_or_else(|| Answer::parse(&fetched.answer.body, None));
    let received = Received { collected: fetched.answer.clone(), answer };
    let seen = exchange.see(id, &known, &received).await?;
    let report = Report::Directed { stored: fetched.is_stored() };
    let response = brought(&fetched, report, CacheOutcome::Request, exchange.log);
    shown(&mut exchange, (&fetched, &known), seen, response)
}

/// Puts the body that the team may see into `response`, which was built from a call's answer. The body is the record,
/// or the text about Iluma's failure. If the team has no such record, returns the refusal "not found".
fn shown(
    exchange: &mut Exchange<'_>,
    (fetched, known): (&FetchResult, &Known),
    seen: Seen,
    mut response: Response<ReplyBody>,
) -> Result<Response<ReplyBody>, Rejection> {
    match seen {
        Seen::Own(body) => *response.body_mut() = ReplyBody::full(body),
        Seen::Nothing if is_absent(&fetched.answer) => return Err(Rejection::NotFound),
        Seen::Nothing => {
            let shared = fetched.shared.as_ref().map(|body| body.with(None));
            let body = shared.unwrap_or_else(|| fetched.answer.body.clone());
            let (head, body) = exchange.failed(known, Collected { body, ..fetched.answer.clone() }).into_parts();
            response.headers_mut().extend(head.headers);
            *response.body_mut() = body;
        }
    }
    reference::forget_body(response.headers_mut());
    Ok(response)
}
