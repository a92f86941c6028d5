//! Records: made by one team, seen by that team alone.
//!
//! Invariants: toward upstream every reference has the team's seal, and on the way back its own again; an id that is not
//! the team's is answered like one that does not exist, after the same call to upstream, with the same bytes.

use super::ask::{asker, look, readable};
use super::fetch::{FetchResult, Joined, brought, from_entry};
use super::forward::whole;
use super::owners::Asker;
use super::record::Record as Log;
use super::runtime::RuntimeConfig;
use super::{Gateway, account_of};
use crate::base::json_template::Absent;
use crate::cache::{Report, Scope, Subject};
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::Route;
use crate::redis::client::Budget;
use crate::reference::{
    self, Answer, BodyError, Directives, Kind, List, Outcome, Ownership, PrefixStripper, Question, Record,
    ReferencePrefix, ReferencePrefixes, SealedBody,
};
use crate::reply::{Rejection, ReplyBody};
use crate::state::{Owner, StateError};
use crate::telemetry::CacheOutcome;
use crate::tenant::Tenant;
use crate::upstream::{self, Collected, Outgoing, OutgoingBody};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Whose a record is, as far as it is known before upstream was asked.
enum Known {
    /// The team's.
    Own(Owner),
    /// Not known to be the team's; whether it is another's.
    Unknown { taken: bool },
    /// State can't be asked.
    Untold,
}

impl Known {
    fn by(told: Result<(Option<Owner>, bool), StateError>) -> Self {
        match told {
            Ok((Some(owner), _)) => Self::Own(owner),
            Ok((None, taken)) => Self::Unknown { taken },
            Err(_) => Self::Untold,
        }
    }
}

/// What a team may see of a record that upstream has.
enum Seen {
    /// It is the team's.
    Own(Bytes),
    /// It is not, or is not there.
    Nothing,
}

impl Gateway {
    /// What became of one request about a bank account. A final answer is kept, and ends the sharing of the request; while
    /// there is none, upstream is asked once a second.
    pub(super) async fn look_at(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        (route, subject): (Route, Subject),
        record: &mut Log,
    ) -> Result<Response<ReplyBody>, Rejection> {
        if self.cache.is_behind() {
            self.cache.confirm(&record.redis).await;
        }
        let mut headers = request.into_parts().0.headers;
        let directives = Directives::of(&headers);
        let skip = reference::is_magic(&headers) || directives.no_cache || directives.no_store;
        readable(&mut headers);
        let id = route.record.clone().ok_or(Rejection::Internal)?;
        let (name, asker) = (route.name, asker(tenant, &route, record));
        let known = self.known_owner(tenant, &id, &record.redis).await;
        let scope = Scope::shared(&tenant.account);
        let ask = self.plain(&scope, subject, Some(tenant), directives, route, headers);
        let Known::Own(owner) = known else {
            if directives.only_if_cached {
                return Err(Rejection::OnlyIfCached);
            }
            // Nothing from memory: how long the answer takes would tell that somebody else knows the id.
            let landed = self.alone(live, ask, record).await?;
            let seen = self.see(live, tenant, &asker, (&id, &known), &landed.answer, &record.redis).await?;
            let report = Report::Directed { stored: landed.is_stored() };
            return self.shown(live, tenant, &landed, seen, brought(&landed, report, CacheOutcome::Request, record));
        };
        let reference = owner.reference.as_deref();
        if !skip && let Some(hit) = self.known(live, &ask, directives.max_age, record).await {
            return Ok(from_entry(&hit, reference, name, record));
        }
        if directives.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        let (landed, report, outcome) = if skip {
            let landed = self.alone(live, ask, record).await?;
            let stored = landed.is_stored();
            (landed, Report::Directed { stored }, CacheOutcome::Request)
        } else {
            match self.join(live, ask, record).await? {
                Joined::Hit(hit) => return Ok(from_entry(&hit, reference, name, record)),
                Joined::Led(landed) => {
                    let stored = landed.is_stored();
                    (landed, Report::Miss { stored }, if stored { CacheOutcome::Stored } else { CacheOutcome::Miss })
                }
                Joined::Shared(landed, _) => (landed, Report::Collapsed, CacheOutcome::Collapsed),
            }
        };
        let body = landed.shared.as_ref().filter(|_| landed.answer.status.is_success());
        let seen = body.map_or(Seen::Nothing, |body| Seen::Own(body.with(reference)));
        self.shown(live, tenant, &landed, seen, brought(&landed, report, outcome, record))
    }

    /// Makes a record, or makes one anew: the reference is sealed, the team comes to own what upstream says it is.
    pub(super) async fn submit(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        route: Route,
        record: &mut Log,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let asker = asker(tenant, &route, record);
        if route.record.is_some()
            && let Some(failure) = self.check_owner(live, tenant, &asker, &route, record).await?
        {
            return Ok(failure);
        }
        // Made anew, a record keeps the reference that it has.
        let absent = if route.record.is_some() { Absent::Leave } else { Absent::Insert };
        let seal = live.seal(tenant);
        let (mut parts, body) = request.into_parts();
        let empty = body.is_end_stream();
        // Without a body there is no place for the seal: a record that is to be made would be nobody's.
        if empty && seal.is_some() && route.record.is_none() {
            return Err(BodyError::Malformed.into());
        }
        let (mut target, mut reference, mut outcome) = (route.target, None, None);
        let body = match &seal {
            Some((seal, _)) if !empty => {
                (target, reference) = seal.target(&target, Absent::Leave)?;
                match Kind::of(&parts.headers)? {
                    Kind::Multipart(boundary) => {
                        let sealed = SealedBody::seal(body, &boundary, seal.clone(), absent);
                        outcome = Some(sealed.outcome());
                        OutgoingBody::filtered(sealed, reference::forwardable_trailers)
                    }
                    Kind::Json | Kind::Form => {
                        let timeouts = live.upstream.timeouts();
                        let body = reference::read(body, timeouts.idle, timeouts.answer).await?;
                        record.request_bytes = body.len() as u64;
                        let question = Question::parse(&parts.headers, &body)?;
                        reference = question.reference.clone().or(reference);
                        OutgoingBody::Full(question.seal(seal, absent).or(Some(body)))
                    }
                }
            }
            _ => OutgoingBody::stream(body, reference::forwardable_trailers),
        };
        if seal.is_some() && !empty {
            reference::forget_body(&mut parts.headers);
        }
        reference::forwardable_request(&mut parts.headers);
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let outgoing =
            Outgoing { method: parts.method, target, headers: parts.headers, body, repeatable: route.repeatable };
        record.upload(outgoing.body.progress());
        let sent = self.send(live, tenant, route.name, outgoing, record).await;
        let refused = outcome.as_ref().and_then(|outcome: &Arc<Outcome>| outcome.result());
        let response = match (sent, refused) {
            // What broke off is the body that was refused, whatever that looks like at the other end.
            (_, Some(Err(error))) => return Err(error.into()),
            (sent, given) => {
                reference = given.and_then(Result::ok).flatten().or(reference);
                sent?
            }
        };
        let answer = self.collect(live, tenant, response).await?;
        let Some((seal, seals)) = seal else {
            // References are nobody's here: state alone knows whose the record is.
            let own = ReferencePrefixes::of([]);
            if let Some(Record { id: Some(id), reference, .. }) =
                Record::read(&answer.body, &own).filter(|_| answer.status.is_success())
            {
                let tags: Vec<_> = self.persons.in_json(&answer.body).into_iter().collect();
                self.own(&asker, &id, reference.as_deref(), &tags, &record.redis).await;
            }
            return Ok(whole(answer.status, answer.headers, ReplyBody::full(answer.body)));
        };
        let echo = PrefixStripper::new(seal, reference.as_deref().and_then(reference::reference_text).as_deref());
        if !answer.status.is_success() {
            return Ok(unsealed(answer, &echo));
        }
        let Some(made) = Record::read(&answer.body, seals) else { return Ok(unsealed(answer, &echo)) };
        if let Some(id) = &made.id {
            let tags: Vec<_> = self.persons.in_json(&answer.body).into_iter().collect();
            // What a recapture brings has the reference that the record was made with.
            let known = made.reference.clone().filter(|_| made.sealed_by.is_some()).or(reference.clone());
            self.own(&asker, id, known.as_deref(), &tags, &record.redis).await;
        }
        let body = made.made_with(reference.as_deref());
        Ok(with_body(answer, body))
    }

    /// Shows a record by its id, or the team's own records of a list.
    pub(super) async fn records(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        route: Route,
        record: &mut Log,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let mut headers = request.into_parts().0.headers;
        readable(&mut headers);
        let asker = asker(tenant, &route, record);
        if let Some(id) = route.record.clone() {
            let known = self.known_owner(tenant, &id, &record.redis).await;
            let answer = self.get(live, tenant, route.name, route.target.clone(), headers, record).await?;
            return match self.see(live, tenant, &asker, (&id, &known), &answer, &record.redis).await? {
                Seen::Own(body) => Ok(with_body(answer, body)),
                Seen::Nothing if is_absent(&answer) => Err(Rejection::NotFound),
                Seen::Nothing => Ok(self.failed(live, tenant, answer)),
            };
        }
        let Some((seal, _)) = live.seal(tenant) else {
            let answer = self.get(live, tenant, route.name, route.target.clone(), headers, record).await?;
            return self.page(live, tenant, answer, None).await.map(|(page, _)| page);
        };
        let (target, reference) = seal.target(&route.target, Absent::Leave)?;
        let answer = self.get(live, tenant, route.name, target, headers.clone(), record).await?;
        let text = reference.as_deref().and_then(reference::reference_text);
        let (page, any) = self.page(live, tenant, answer, text.as_deref()).await?;
        if any || text.is_none() || !tenant.owns_unsealed || !page.status().is_success() {
            return Ok(page);
        }
        // From before references were sealed.
        let answer = self.get(live, tenant, route.name, route.target.clone(), headers, record).await?;
        self.page(live, tenant, answer, text.as_deref()).await.map(|(page, _)| page)
    }

    /// Passes a file on that belongs to one of the team's records.
    pub(super) async fn file(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        request: Request<Incoming>,
        route: Route,
        record: &mut Log,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let asker = asker(tenant, &route, record);
        if let Some(failure) = self.check_owner(live, tenant, &asker, &route, record).await? {
            return Ok(failure);
        }
        let response = self.forward(live, tenant, request, route, record).await?;
        // No such file: the same as no such record.
        if response.status() == StatusCode::NOT_FOUND { Err(Rejection::NotFound) } else { Ok(response) }
    }

    /// Makes sure that the record which the path names is the team's, by a look at it if need be. Gives upstream's answer
    /// where that is a failure, by which it can't be told.
    async fn check_owner(
        self: &Arc<Self>,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        asker: &Asker,
        route: &Route,
        record: &mut Log,
    ) -> Result<Option<Response<ReplyBody>>, Rejection> {
        let id = route.record.as_deref().ok_or(Rejection::Internal)?;
        let known = self.known_owner(tenant, id, &record.redis).await;
        if matches!(known, Known::Own(_)) {
            return Ok(None);
        }
        let target = route.capture().ok_or(Rejection::NotFound)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let answer = self.get(live, tenant, RouteName::CaptureGet, target, headers, record).await?;
        match self.see(live, tenant, asker, (id, &known), &answer, &record.redis).await? {
            Seen::Own(_) => Ok(None),
            Seen::Nothing if is_absent(&answer) => Err(Rejection::NotFound),
            Seen::Nothing => Ok(Some(self.failed(live, tenant, answer))),
        }
    }

    /// Whose a record is, by state.
    async fn known_owner(&self, tenant: &Tenant, id: &str, redis: &Budget) -> Known {
        Known::by(self.owners.told(&tenant.name, &tenant.account, id, redis).await)
    }

    /// What the team may see of upstream's answer about a record. What makes it the team's without state's word, a seal or
    /// that nobody else's it is, makes the team an owner.
    async fn see(
        &self,
        live: &RuntimeConfig,
        tenant: &Tenant,
        asker: &Asker,
        (id, known): (&str, &Known),
        answer: &Collected,
        redis: &Budget,
    ) -> Result<Seen, Rejection> {
        if !answer.status.is_success() {
            return Ok(Seen::Nothing);
        }
        let seals = live.seal(tenant);
        let own = ReferencePrefixes::of([]);
        let Some(record) = Record::read(&answer.body, seals.as_ref().map_or(&own, |(_, seals)| *seals)) else {
            return Ok(Seen::Nothing);
        };
        if let Known::Own(owner) = known {
            return Ok(Seen::Own(record.with(owner.reference.as_deref())));
        }
        let ownership = seals.as_ref().map_or(Ownership::Unsealed, |(seal, _)| record.ownership(seal));
        match (ownership, known) {
            (Ownership::Own, _) => {}
            (Ownership::Foreign, _) => return Ok(Seen::Nothing),
            (Ownership::Unsealed, Known::Untold) => return Err(Rejection::OwnerUnknown),
            (Ownership::Unsealed, Known::Unknown { taken: false }) if tenant.owns_unsealed => {}
            (Ownership::Unsealed, _) => return Ok(Seen::Nothing),
        }
        // From now on state knows it, and what the next look is answered with may come from memory.
        let tags: Vec<_> = self.persons.in_json(&answer.body).into_iter().collect();
        self.own(asker, id, record.reference.as_deref(), &tags, redis).await;
        Ok(Seen::Own(record.own()))
    }

    /// A page of a list with the team's own records, and whether there are any.
    async fn page(
        &self,
        live: &RuntimeConfig,
        tenant: &Tenant,
        answer: Collected,
        reference: Option<&str>,
    ) -> Result<(Response<ReplyBody>, bool), Rejection> {
        let own = ReferencePrefixes::of([]);
        let seals = live.seal(tenant);
        let (seal, seals) = match &seals {
            Some((seal, seals)) => (seal.clone(), *seals),
            None => (ReferencePrefix::of(&tenant.name), &own),
        };
        let echo = PrefixStripper::new(seal.clone(), reference);
        if !answer.status.is_success() {
            return Ok((unsealed(answer, &echo), false));
        }
        let list = match Answer::read(&answer.body, seals) {
            Answer::List(list) => list,
            // No list, and nothing that could be told to be the team's.
            Answer::Record(_) | Answer::Other => return Err(upstream::CallError::Garbled.into()),
        };
        let kept = self.own_among(tenant, &seal, &list).await?;
        let mut place = 0;
        let page = list.kept(&echo, |_| {
            place += 1;
            kept.contains(&(place - 1))
        });
        let any = !kept.is_empty();
        Ok((with_body(answer, page), any))
    }

    /// Which of a list's records are the team's, by their places.
    async fn own_among(
        &self,
        tenant: &Tenant,
        seal: &ReferencePrefix,
        list: &List,
    ) -> Result<BTreeSet<usize>, Rejection> {
        let is_own = async |record: &Record| match (record.ownership(seal), &record.id) {
            (Ownership::Own, _) => Ok(true),
            (Ownership::Foreign, _) | (Ownership::Unsealed, None) => Ok(false),
            // There is no answer without, so it is waited for longer than what a request may wait for Redis otherwise.
            (Ownership::Unsealed, Some(id)) => {
                match Known::by(self.owners.of(&tenant.name, &tenant.account, id).await) {
                    Known::Own(_) => Ok(true),
                    Known::Unknown { taken } => Ok(tenant.owns_unsealed && !taken),
                    Known::Untold => Err(Rejection::OwnerUnknown),
                }
            }
        };
        let own = try_join_all(list.records().map(is_own)).await?;
        Ok(own.into_iter().enumerate().filter_map(|(place, own)| own.then_some(place)).collect())
    }

    /// A look at upstream, whole.
    async fn get(
        &self,
        live: &Arc<RuntimeConfig>,
        tenant: &Tenant,
        route: RouteName,
        target: PathAndQuery,
        headers: HeaderMap,
        record: &mut Log,
    ) -> Result<Collected, Rejection> {
        let response = self.send(live, tenant, route, look(target, headers), record).await?;
        self.collect(live, tenant, response).await
    }

    async fn collect(
        &self,
        live: &RuntimeConfig,
        tenant: &Tenant,
        response: Response<upstream::AnswerBody>,
    ) -> Result<Collected, Rejection> {
        let credential = &account_of(live, tenant).credential;
        let mut answer = upstream::collect(response, Some(credential), live.upstream.timeouts().answer).await?;
        reference::forwardable_response(&mut answer.headers);
        Ok(answer)
    }

    /// Upstream's own failure, which says nothing about a record.
    fn failed(&self, live: &RuntimeConfig, tenant: &Tenant, mut answer: Collected) -> Response<ReplyBody> {
        let Some((seal, seals)) = live.seal(tenant) else {
            return whole(answer.status, answer.headers, ReplyBody::full(answer.body));
        };
        // It may name the record's reference all the same, whosever that is.
        if let Some(record) = Record::read(&answer.body, seals) {
            answer.body = record.seen_by(&seal);
        }
        unsealed(answer, &PrefixStripper::new(seal, None))
    }

    /// Upstream's answer about a bank request, or that there is none. `response` is what the call brought.
    fn shown(
        &self,
        live: &RuntimeConfig,
        tenant: &Tenant,
        landed: &FetchResult,
        seen: Seen,
        mut response: Response<ReplyBody>,
    ) -> Result<Response<ReplyBody>, Rejection> {
        match seen {
            Seen::Own(body) => *response.body_mut() = ReplyBody::full(body),
            Seen::Nothing if is_absent(&landed.answer) => return Err(Rejection::NotFound),
            Seen::Nothing => {
                let shared = landed.shared.as_ref().map(|body| body.with(None));
                let body = shared.unwrap_or_else(|| landed.answer.body.clone());
                let (head, body) = self.failed(live, tenant, Collected { body, ..landed.answer.clone() }).into_parts();
                response.headers_mut().extend(head.headers);
                *response.body_mut() = body;
            }
        }
        reference::forget_body(response.headers_mut());
        Ok(response)
    }
}

/// Whether an answer that shows a team nothing is one about the record, and no failure of upstream's.
fn is_absent(answer: &Collected) -> bool {
    answer.status.is_success() || answer.status == StatusCode::NOT_FOUND
}

/// Upstream's answer with another body.
fn with_body(answer: Collected, body: Bytes) -> Response<ReplyBody> {
    let mut headers = answer.headers;
    reference::forget_body(&mut headers);
    whole(answer.status, headers, ReplyBody::full(body))
}

/// Upstream's error, or what else is no record, with the caller's own reference.
fn unsealed(mut answer: Collected, echo: &PrefixStripper) -> Response<ReplyBody> {
    echo.head(&mut answer.headers);
    let body = echo.error(&answer.body);
    with_body(answer, body)
}
