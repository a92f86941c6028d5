//! Rows that are read and cached: from memory, from a call that is under way, or from upstream.

use super::admit::Admission;
use super::forward::{passed_on, whole};
use super::live::Live;
use super::record::Record;
use super::{Gateway, account_of};
use crate::cache::{Absent, Hit, Key, Leader, Report, Scope, Seat, Spliced, Subject};
use crate::call::{self, Ambiguity, Directives, Question};
use crate::name::RouteName;
use crate::reply::{Rejection, ReplyBody};
use crate::route::Route;
use crate::telemetry::CacheOutcome;
use crate::telemetry::metrics::Saved;
use crate::tenant::Tenant;
use crate::upstream::{self, CallError, Collected, Outgoing, OutgoingBody};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{self, ACCEPT_ENCODING, AGE, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

const MAGIC_REPLY: &str = "magic-reply";

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What one call brought to all who asked.
#[derive(Debug)]
pub(super) struct Landed {
    answer: Collected,
    /// The body for those who ask with another reference; none if it tells the first one's.
    shared: Option<Spliced>,
    stored: bool,
    took: Duration,
}

/// A question that the cache may answer.
struct Ask {
    key: Key,
    subject: Subject,
    route: RouteName,
    directives: Directives,
    /// The caller's, as JSON text.
    reference: Option<Bytes>,
    /// Whose credential the call carries, by index; none for health.
    account: Option<usize>,
    outgoing: Outgoing,
}

impl Gateway {
    /// A bank or watchlist question.
    pub(super) async fn answer(
        self: &Arc<Self>,
        live: &Arc<Live>,
        tenant: &Tenant,
        request: Request<Incoming>,
        route: Route,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let timeouts = live.upstream.timeouts();
        let (parts, body) = request.into_parts();
        let body = call::read(&parts.headers, body, timeouts.idle, timeouts.answer).await?;
        record.request_bytes = body.len() as u64;
        let Some(subject) = Subject::of(route.name) else { return Err(Rejection::Internal) };
        let question = match Question::parse(&parts.headers, &body) {
            Ok(question) => question,
            // Malformed or unreadable: on a row without references that is upstream's to judge.
            Err(_) if subject == Subject::Cft => Question::unreadable(),
            Err(error) => return Err(error.into()),
        };
        let directives = Directives::of(&parts.headers);
        let bypass = bypass(&parts.headers, &question, directives);
        let key = self.cache.key(&scope_of(tenant), subject, route.target.as_str(), &question.parameters);

        // A hit needs no more. What comes after is large and has a call to wait for: on the heap it does not weigh on
        // every request.
        if bypass.is_none()
            && !directives.no_cache
            && let Some(hit) = self.cache.look_up(&key, directives.max_age)
        {
            return Ok(served(&hit, question.reference.as_deref(), route.name, record));
        }
        if directives.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        let (method, mut headers) = (parts.method, parts.headers);
        readable(&mut headers);
        let (body, repeatable) = (OutgoingBody::Full(Some(body)), false);
        let outgoing = Outgoing { method, target: route.target, headers, body, repeatable };
        if let Some(detail) = bypass {
            return Box::pin(self.bypass(live, tenant, route.name, outgoing, detail, record)).await;
        }
        let (reference, account) = (question.reference, Some(tenant.account_index));
        let ask = Ask { key, subject, route: route.name, directives, reference, account, outgoing };
        Box::pin(self.ask(live, Some(tenant), ask, record)).await
    }

    /// A public list, the same for every tenant of an account.
    pub(super) async fn list(
        self: &Arc<Self>,
        live: &Arc<Live>,
        tenant: &Tenant,
        request: Request<Incoming>,
        route: Route,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let (scope, mut headers) = (Scope::shared(&tenant.account), request.into_parts().0.headers);
        let (directives, magic) = (Directives::of(&headers), call::is_magic(&headers));
        readable(&mut headers);
        if magic && directives.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        if magic {
            let outgoing = look(route.target, headers);
            return self.bypass(live, tenant, route.name, outgoing, MAGIC_REPLY, record).await;
        }
        let account = Some(tenant.account_index);
        let ask = self.plain(&scope, Subject::BankCodes, account, directives, route, headers);
        self.ask(live, Some(tenant), ask, record).await
    }

    /// A call that the cache is left out of.
    async fn bypass(
        self: &Arc<Self>,
        live: &Arc<Live>,
        tenant: &Tenant,
        route: RouteName,
        outgoing: Outgoing,
        detail: &'static str,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        record.cache = CacheOutcome::Bypass;
        let response = self.send(live, tenant, route, outgoing, record).await?;
        let account = account_of(live, tenant);
        let mut response = passed_on(response, &account.credential, live.upstream.timeouts().answer).await?;
        response.headers_mut().insert(CACHE_STATUS, Report::Bypass { detail }.header());
        Ok(response)
    }

    /// Upstream's health, which has no account and needs no key.
    pub(super) async fn health(
        self: &Arc<Self>,
        live: &Arc<Live>,
        route: Route,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        // Who needs no key has no say in what is sent, nor in how often: no query, no header, no directive counts.
        let route = Route { target: PathAndQuery::from_static("/health"), ..route };
        // Any account names the one upstream that all of them share.
        let account = live.accounts.first().ok_or(Rejection::Internal)?;
        let (scope, headers) = (Scope::shared(&account.name), HeaderMap::new());
        let directives = Directives::default();
        let ask = self.plain(&scope, Subject::Health, None, directives, route, headers);
        self.ask(live, None, ask, record).await
    }

    /// A GET whose answer is the same for everybody in `scope`.
    fn plain(
        &self,
        scope: &Scope<'_>,
        subject: Subject,
        account: Option<usize>,
        directives: Directives,
        route: Route,
        headers: HeaderMap,
    ) -> Ask {
        let key = self.cache.key(scope, subject, route.target.as_str(), &[]);
        let outgoing = look(route.target, headers);
        Ask { key, subject, route: route.name, directives, reference: None, account, outgoing }
    }

    /// Answers from the cache, from a call that is under way, or makes the call.
    async fn ask(
        self: &Arc<Self>,
        live: &Arc<Live>,
        tenant: Option<&Tenant>,
        ask: Ask,
        record: &mut Record,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let (directives, reference) = (ask.directives, ask.reference.clone());
        let route = ask.route;
        let fresh = |max_age| self.cache.look_up(&ask.key, max_age);
        if !directives.no_cache
            && let Some(hit) = fresh(directives.max_age)
        {
            return Ok(served(&hit, reference.as_deref(), route, record));
        }
        if directives.only_if_cached {
            return Err(Rejection::OnlyIfCached);
        }
        if directives.no_cache || directives.no_store || (directives.max_age.is_some() && fresh(None).is_some()) {
            // The caller wants an answer that is newer than any call which began before.
            let admission = self.admit_question(live, tenant, &ask).await?;
            let landed = self.spawn_call(live, ask, admission, None, record).await?;
            let stored = landed.stored;
            return Ok(brought(&landed, Report::Directed { stored }, CacheOutcome::Request, record));
        }
        loop {
            match self.flights.join(&ask.key) {
                Seat::Leader(leader) => {
                    // The answer may have landed between the look-up and here.
                    if let Some(hit) = fresh(None) {
                        drop(leader);
                        return Ok(served(&hit, reference.as_deref(), route, record));
                    }
                    // Refused, it leaves the lead to the next one, who is asked for itself.
                    let admission = self.admit_question(live, tenant, &ask).await?;
                    let landed = self.spawn_call(live, ask, admission, Some(leader), record).await?;
                    let stored = landed.stored;
                    let outcome = if stored { CacheOutcome::Stored } else { CacheOutcome::Miss };
                    return Ok(brought(&landed, Report::Miss { stored }, outcome, record));
                }
                Seat::Waiter(waiter) => {
                    let Some(landed) = waiter.landed().await else { continue };
                    let landed = landed?;
                    if let Some(body) = &landed.shared {
                        record.cache = CacheOutcome::Collapsed;
                        record.metrics().saved(route, Saved::Collapsed);
                        return Ok(shared(&landed.answer, body.with(reference.as_deref())));
                    }
                    // What came back is for the other one's eyes alone.
                }
            }
        }
    }

    /// Health carries no credential, so no account's limits know it.
    async fn admit_question(
        &self,
        live: &Arc<Live>,
        tenant: Option<&Tenant>,
        ask: &Ask,
    ) -> Result<Option<Admission>, Rejection> {
        match tenant {
            Some(tenant) => self.admit(live, tenant, ask.route, !ask.outgoing.repeatable).await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes the call in a task of its own, which ends whether or not anybody still waits.
    async fn spawn_call(
        self: &Arc<Self>,
        live: &Arc<Live>,
        ask: Ask,
        admission: Option<Admission>,
        leader: Option<Leader<Result<Arc<Landed>, CallError>>>,
        record: &Record,
    ) -> Result<Arc<Landed>, Rejection> {
        let (gateway, live, permit) = (Arc::clone(self), Arc::clone(live), record.permit());
        let (done, landed) = tokio::sync::oneshot::channel();
        self.tasks.spawn(async move {
            let _held = permit;
            // A panic is a bug; it must not make every waiter send the same again.
            let called = AssertUnwindSafe(gateway.call(&live, ask, admission)).catch_unwind().await;
            let answer = called.unwrap_or(Err(CallError::Broken)).map(Arc::new);
            if let Some(leader) = leader {
                leader.land(answer.clone());
            }
            // Whoever asked may have gone away.
            let _ = done.send(answer);
        });
        // The task always sends, unless the process ends.
        Ok(landed.await.map_err(|_| Rejection::Internal)??)
    }

    async fn call(&self, live: &Live, ask: Ask, mut admission: Option<Admission>) -> Result<Landed, CallError> {
        let started = self.clock.now();
        if let Some(admission) = &mut admission {
            admission.start(None);
        }
        let account = ask.account.and_then(|index| live.accounts.get(index));
        let credential = account.map(|account| &account.credential);
        let total = live.upstream.timeouts().answer;
        let answer = match live.upstream.send(ask.outgoing, credential).await {
            Ok(response) => upstream::collect(response, credential, total).await,
            Err(error) => Err(error),
        };
        let took = self.clock.now().saturating_duration_since(started);
        if let Some(account) = account {
            account.metrics.request(ask.route, answer.as_ref().ok().map(|a| a.status.as_u16()), took);
        }
        if let Some(admission) = admission {
            match &answer {
                Ok(answer) => admission.answered(answer),
                Err(error) => admission.failed(*error),
            }
            // Whoever sees the answer finds its outcome in the books, even if the process is killed right after. Where it
            // can't be written now it is kept, and the answer is worth no less.
            let _ = self.ledger.flush().await;
        }
        let mut answer = answer?;
        call::forwardable_response(&mut answer.headers);
        // Bank answers echo a reference. Where none was given there is none to echo; else its absence is the answer.
        let echoes = ask.subject == Subject::Bank && answer.status.is_success();
        let absent = if echoes && ask.reference.is_none() { Absent::Insert } else { Absent::Leave };
        let split = Spliced::split(&answer.body, absent);
        let whole = split.is_none() || !answer.status.is_success();
        let shared = split.unwrap_or_else(|| Spliced::whole(&answer.body));
        let content_type = answer.headers.get(CONTENT_TYPE);
        let stored = !ask.directives.no_store
            && self.cache.offer(ask.key, ask.subject, answer.status, content_type, &answer.body, &shared);
        // An error's text may quote the reference, outside of the place that is ours to change.
        let tells = whole && ask.reference.as_deref().is_some_and(|reference| quotes(&shared, reference));
        Ok(Landed { answer, shared: (!tells).then_some(shared), stored, took })
    }
}

/// Whether a body has a reference (JSON text with its quotes) anywhere in it. One of two letters could be any two
/// letters, and tells nothing.
fn quotes(body: &Spliced, reference: &[u8]) -> bool {
    let bare = reference.get(1..reference.len().saturating_sub(1)).unwrap_or_default();
    bare.len() > 2 && memchr::memmem::find(&body.with(None), bare).is_some()
}

/// A GET that only looks; HEAD is answered from its answer.
fn look(target: PathAndQuery, headers: HeaderMap) -> Outgoing {
    Outgoing { method: Method::GET, target, headers, body: OutgoingBody::Empty, repeatable: true }
}

/// Whom the entries that a tenant's questions make may serve.
fn scope_of(tenant: &Tenant) -> Scope<'_> {
    if tenant.share_cache { Scope::shared(&tenant.account) } else { Scope::private(&tenant.account, &tenant.name) }
}

/// Why the cache is left out of it, if it is.
fn bypass(headers: &HeaderMap, question: &Question, directives: Directives) -> Option<&'static str> {
    if call::is_magic(headers) {
        return Some(MAGIC_REPLY);
    }
    match question.ambiguity {
        Some(Ambiguity::DuplicateMember) => Some("duplicate-member"),
        Some(Ambiguity::Nesting) => Some("nesting"),
        Some(Ambiguity::Unreadable) => Some("unreadable"),
        None => directives.no_store.then_some("no-store"),
    }
}

/// Takes from a request's head what would make the answer one for this caller alone, or one that can't be read.
fn readable(headers: &mut HeaderMap) {
    call::forwardable_request(headers);
    for name in [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
        header::TE,
        header::TRAILER,
        // The body has been read, and is sent in one piece.
        header::CONTENT_LENGTH,
    ] {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// The reply from an entry.
fn served(hit: &Hit, reference: Option<&[u8]>, route: RouteName, record: &mut Record) -> Response<ReplyBody> {
    record.cache = CacheOutcome::Hit;
    record.metrics().saved(route, Saved::Hit);
    let body = ReplyBody::full(hit.entry.body.with(reference));
    let mut response = bare(hit.entry.status, hit.entry.content_type.as_ref(), body);
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, Report::Hit { ttl: hit.ttl }.header());
    headers.insert(AGE, HeaderValue::from(hit.age.as_secs()));
    response
}

/// The reply to who made the call: upstream's answer as it came.
fn brought(landed: &Landed, report: Report, outcome: CacheOutcome, record: &mut Record) -> Response<ReplyBody> {
    record.cache = outcome;
    record.upstream_took = Some(landed.took);
    record.upstream_status = Some(landed.answer.status.as_u16());
    let body = ReplyBody::full(landed.answer.body.clone());
    let mut response = whole(landed.answer.status, landed.answer.headers.clone(), body);
    response.headers_mut().insert(CACHE_STATUS, report.header());
    response
}

/// The reply to who waited for another's call, with nothing in it of the other.
fn shared(answer: &Collected, body: Bytes) -> Response<ReplyBody> {
    let mut response = bare(answer.status, answer.headers.get(CONTENT_TYPE), ReplyBody::full(body));
    response.headers_mut().insert(CACHE_STATUS, Report::Collapsed.header());
    response
}

fn bare(status: StatusCode, content_type: Option<&HeaderValue>, body: ReplyBody) -> Response<ReplyBody> {
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    whole(status, headers, body)
}
