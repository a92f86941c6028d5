//! The handler of a GET of a record by its id, or of a list of the team's own records.

use super::call_reference::{CallReference, answered};
use super::exchange::Exchange;
use super::ownership::{Known, Seen, may_see};
use super::replies::{is_absent, readable, stripped, with_body};
use crate::base::json_template::Absent;
use crate::iluma;
use crate::ledger;
use crate::reference::{self, Answer, List, PrefixStripper, Record, ReferencePrefix, ReferencePrefixes};
use crate::reply::{Rejection, ReplyBody};
use crate::tenant::Tenant;
use crate::upstream::{CallError, Collected};
use futures_util::future::try_join_all;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use std::collections::BTreeSet;

/// Shows a record by its id, or the team's own records of a list.
pub(super) async fn serve(
    mut exchange: Exchange<'_>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Rejection> {
    let mut headers = request.into_parts().0.headers;
    readable(&mut headers);
    match exchange.route.record.clone() {
        Some(id) => by_id(&mut exchange, &id, headers).await,
        None => list(&mut exchange, headers).await,
    }
}

async fn by_id(exchange: &mut Exchange<'_>, id: &str, headers: HeaderMap) -> Result<Response<ReplyBody>, Rejection> {
    let known = exchange.known_owner(id).await;
    exchange.call = CallReference::of_get(known.is_named());
    let received = exchange.get(exchange.route.name, exchange.route.target.clone(), headers).await?;
    match exchange.see(id, &known, &received).await? {
        Seen::Own(body) => Ok(with_body(received.collected, body)),
        Seen::Nothing if is_absent(&received.collected) => Err(Rejection::NotFound),
        Seen::Nothing => Ok(exchange.failed(&known, received.collected)),
    }
}

async fn list(exchange: &mut Exchange<'_>, headers: HeaderMap) -> Result<Response<ReplyBody>, Rejection> {
    let (name, target) = (exchange.route.name, exchange.route.target.clone());
    let (own_prefix, prefixes) = exchange.prefixes();
    let Some((prefix, _)) = exchange.prefix() else {
        reference::scan_query(&target, &own_prefix, prefixes)?;
        let answer = exchange.get(name, target, headers).await?.collected;
        return page(exchange, answer, None).await.map(|(page, _)| page);
    };
    let (prefixed, reference) = prefix.target(&target, Absent::Leave)?;
    let answer = exchange.get(name, prefixed, headers.clone()).await?.collected;
    let text = reference.as_deref().and_then(reference::reference_text);
    let (own, any) = page(exchange, answer, text.as_deref()).await?;
    if any || text.is_none() || !exchange.tenant.owns_unprefixed || !own.status().is_success() {
        return Ok(own);
    }
    // A reference without the team's own prefix must not have another team's prefix.
    if text.as_deref().is_some_and(|text| prefixes.is_foreign(&own_prefix, text)) {
        return Ok(own);
    }
    // The team's records may be older than the account's use of prefixes.
    let answer = exchange.get(name, target, headers).await?.collected;
    page(exchange, answer, text.as_deref()).await.map(|(page, _)| page)
}

/// Returns the answer for a list, with only the team's own records. The second value is true if there is such a record.
async fn page(
    exchange: &Exchange<'_>,
    answer: Collected,
    reference: Option<&str>,
) -> Result<(Response<ReplyBody>, bool), Rejection> {
    let none = ReferencePrefixes::of([]);
    let (prefix, prefixes) = exchange.prefix().unwrap_or_else(|| (ReferencePrefix::of(&exchange.tenant.name), &none));
    let stripper = PrefixStripper::new(prefix.clone(), reference);
    if !answer.status.is_success() {
        return Ok((stripped(answer, &stripper), false));
    }
    let list = match Answer::read(&answer.body, prefixes) {
        Answer::List(list) => list,
        // The answer is no list, and its owner can't be determined.
        Answer::Record(_) | Answer::Other => return Err(CallError::Garbled.into()),
    };
    settle(exchange, &prefix, &list).await;
    let kept = own_among(exchange, &prefix, &list).await?;
    let mut place = 0;
    let page = list.kept(&stripper, |_| {
        place += 1;
        kept.contains(&(place - 1))
    });
    Ok((with_body(answer, page), !kept.is_empty()))
}

/// Settles the calls that made the team's records in a list. A record without a known owner settles its call by the
/// reference, because the answer of that call may be lost. Any other record settles its call by its id.
async fn settle(exchange: &Exchange<'_>, prefix: &ReferencePrefix, list: &List) {
    let (gateway, Tenant { name, account, .. }) = (exchange.gateway, exchange.tenant);
    let Some(route) = exchange.route.name.made_by() else { return };
    for record in list.records().filter(|record| record.ownership(prefix) == reference::Ownership::Own) {
        let answer = iluma::answer::Answer::parse(record.body(), None);
        let Some((id, outcome)) = ledger::seen(&answer) else { continue };
        let known = Known::of(gateway.owners.of(name, account, id).await);
        match (CallReference::of_get(known.is_named()), answered(&answer)) {
            (CallReference::Unanswered, Some(reference)) => {
                gateway.ledger.settle_by_reference(account, id, (route, &reference), outcome);
            }
            _ if outcome == ledger::Outcome::Unknown => {}
            _ => gateway.ledger.settle(account, id, outcome),
        }
    }
    // An outcome that can't be written now is kept, and written later.
    let _ = gateway.ledger.settled().await;
}

/// Returns the positions of the team's own records in a list.
async fn own_among(
    exchange: &Exchange<'_>,
    prefix: &ReferencePrefix,
    list: &List,
) -> Result<BTreeSet<usize>, Rejection> {
    let (tenant, owners) = (exchange.tenant, &exchange.gateway.owners);
    let is_own = async |record: &Record| {
        let ownership = record.ownership(prefix);
        // Without state there is no answer, so this waits longer for Redis than a request usually may.
        let known = match (&record.id, ownership) {
            (Some(id), reference::Ownership::Unprefixed) => {
                Known::of(owners.of(&tenant.name, &tenant.account, id).await)
            }
            (None, reference::Ownership::Unprefixed) => return Ok(false),
            (_, reference::Ownership::Own | reference::Ownership::Foreign) => Known::Unknown { taken: false },
        };
        may_see(ownership, &known, tenant.owns_unprefixed)
    };
    let own = try_join_all(list.records().map(is_own)).await?;
    Ok(own.into_iter().enumerate().filter_map(|(place, own)| own.then_some(place)).collect())
}
